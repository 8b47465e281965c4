"""The start of a host cluster, step by step: files, processes, readiness, first objects."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable

from hack.cluster.errors import StartError
from hack.cluster.host import control_plane, network, node
from hack.cluster.host.addresses import NODE_NAME
from hack.cluster.host.client import ApiClient, http_answers, wait_until
from hack.cluster.host.control_plane import Plan
from hack.cluster.host.fakenodes import reconcile_fake_nodes
from hack.cluster.host.kubeconfig import kubeconfig, write_kubeconfig
from hack.cluster.host.layout import Layout
from hack.cluster.host.objects import NODES_PATH, dns_rights, is_ready
from hack.cluster.host.pki import certificates_for, write_pki
from hack.cluster.host.process import ProcessRecord, read_records, spawn
from hack.cluster.progress import elapsed, say

READY_SECONDS = 120.0
_LOG_TAIL_CHARACTERS = 2500


def write_files(plan: Plan) -> None:
    """Write all that the components read: keys, kubeconfigs, configurations."""
    layout = plan.layout
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    specs = certificates_for(plan.addresses, control_plane_only=plan.control_plane_only)
    write_pki(layout.root / "pki", specs)
    for spec in specs:
        if spec.file not in ("apiserver", "apiserver-kubelet-client"):
            path = layout.kubeconfig if spec.file == "admin" else layout.component_kubeconfig(spec.file)
            write_kubeconfig(path, _kubeconfig_of(plan, spec.file))
    layout.config("audit-policy.json").write_text(json.dumps(control_plane.AUDIT_POLICY))
    if not plan.control_plane_only:
        filtered = network.bridge_is_filtered(layout)
        node.write_configs(plan, shutil.which("runc") or "runc", bridge_is_filtered=filtered)


def start_control_plane(plan: Plan, timer: Timer) -> ApiClient:
    """Start etcd and the three servers; give a client of the API server that is ready."""
    layout, endpoints = plan.layout, plan.endpoints
    alive = guard(layout)
    spawn(layout, control_plane.etcd(plan))
    wait_until(
        "etcd becoming healthy",
        lambda: http_answers(endpoints.etcd_client, "/health", tls=False),
        timeout=READY_SECONDS,
        alive=alive,
    )
    timer.mark("etcd")
    spawn(layout, control_plane.api_server(plan))
    client = ApiClient(layout.kubeconfig)
    wait_until("the API server becoming ready", lambda: client.answers("/readyz"), timeout=READY_SECONDS, alive=alive)
    timer.mark("API server")
    # Not earlier: the controllers end when the roles that the API server makes at its start are not there yet.
    spawn(layout, control_plane.controller_manager(plan))
    spawn(layout, control_plane.scheduler(plan))
    return client


def await_controllers(plan: Plan, client: ApiClient, timer: Timer) -> None:
    """Wait until pods can be made: the controllers run, and namespace `default` has its service account."""
    endpoints, alive = plan.endpoints, guard(plan.layout)
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    for what, holds in (
        ("the scheduler", lambda: http_answers(endpoints.scheduler, "/healthz", tls=True)),
        ("the controller manager", lambda: http_answers(endpoints.controller_manager, "/healthz", tls=True)),
        ("the default service account", lambda: client.answers(account)),
    ):
        wait_until(f"{what} becoming ready", holds, timeout=READY_SECONDS, alive=alive)
    timer.mark("controllers")


def add_gpus(plan: Plan, client: ApiClient, gpus: int, timer: Timer) -> None:
    """Add the fake GPU nodes, if any are wanted."""
    reconcile_fake_nodes(plan, client, gpus, guard(plan.layout))
    if gpus:
        timer.mark("fake GPU nodes")


def start_node(plan: Plan, client: ApiClient, timer: Timer) -> None:
    """Start what makes this host a node; containerd was started before the API server."""
    layout, endpoints, address = plan.layout, plan.endpoints, plan.addresses.node
    alive = guard(layout)
    for path, body in dns_rights():
        client.create(path, body)
    for command in (node.kubelet(plan), node.kube_proxy(plan), node.coredns(plan)):
        spawn(layout, command)
    for what, holds in (
        ("kube-proxy", lambda: http_answers(endpoints.proxy_health, "/healthz", tls=False, host=address)),
        ("CoreDNS", lambda: http_answers(endpoints.dns_ready, "/ready", tls=False)),
        ("the kubelet", lambda: http_answers(endpoints.kubelet_health, "/healthz", tls=False, host=address)),
        ("the node", lambda: _node_is_ready(client)),
    ):
        wait_until(f"{what} becoming ready", holds, timeout=READY_SECONDS, alive=alive)
    timer.mark("node")


def guard(layout: Layout) -> Callable[[], None]:
    """Give a check that raises, with the end of its log, when a component has ended."""

    def check() -> None:
        for record in read_records(layout).values():
            if not record.is_alive:
                message = f"{record.component} ended while the cluster was starting."
                raise StartError(message, hint=_log_tail(layout, record))

    return check


class Timer:
    """Says how long each part of the start took."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._last = self.started

    def mark(self, what: str) -> None:
        now = time.monotonic()
        say(f"  ✓ {what} ready after {elapsed(now - self._last)}")
        self._last = now


def _node_is_ready(client: ApiClient) -> bool:
    path = f"{NODES_PATH}/{NODE_NAME}"
    if not client.answers(path):
        return False
    node_object = client.request("GET", path)
    # A new node is tainted until the controller manager has seen that it is ready; no pod starts before.
    return is_ready(node_object) and not node_object["spec"].get("taints")


def _kubeconfig_of(plan: Plan, certificate: str) -> dict[str, object]:
    pki = plan.layout.pki
    return kubeconfig(
        plan.layout.name,
        plan.endpoints.api_url,
        authority=pki("ca.crt").read_bytes(),
        certificate=pki(f"{certificate}.crt").read_bytes(),
        key=pki(f"{certificate}.key").read_bytes(),
    )


def _log_tail(layout: Layout, record: ProcessRecord) -> str:
    path = layout.log(record.component)
    text = path.read_text(errors="replace") if path.exists() else ""
    return f"{path} ends with:\n{text[-_LOG_TAIL_CHARACTERS:]}"
