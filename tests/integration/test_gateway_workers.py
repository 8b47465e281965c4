"""Several gateway processes at one port, with a real API server: they serve, die, come again and end as one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from hack.cluster.api import Cluster
from moorage_common.demand import decode
from moorage_gateway.settings import read_settings
from tests.support.api import Api
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import model
from tests.support.operator import ROOT, kubeconfig_of
from tests.support.sleeping import AnsweringPod, Asking, becomes_ready
from tests.support.tokens import token
from tests.support.waiting import eventually

WORKERS = 3


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Path:
    """With the rights of the chart."""
    return kubeconfig_of(cluster, tmp_path / "kubeconfig", "moorage-gateway")


def ask(gateway: GatewayProcess, path: str) -> httpx.Response:
    """Ask at the administrative port."""
    return httpx.get(f"http://127.0.0.1:{gateway.admin_port}{path}", trust_env=False, timeout=10)


def metric(gateway: GatewayProcess, name: str) -> float:
    """One number of the metrics."""
    return next(float(line.split()[-1]) for line in ask(gateway, "/metrics").text.splitlines() if line.startswith(name))


def workers(gateway: GatewayProcess) -> list[psutil.Process]:
    """The processes that serve."""
    return psutil.Process(gateway.process.pid).children()


def serves(gateway: GatewayProcess) -> bool:
    """Whether a fresh connection is answered."""
    try:
        return httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def connections(process: psutil.Process, port: int) -> int:
    """Connections of clients that a process has taken."""
    return sum(1 for found in process.net_connections("tcp") if found.raddr and found.laddr.port == port)


def test_all_workers_serve_one_port_and_are_told_as_one(
    cluster: Cluster, kubeconfig: Path, tmp_path: Path, api: Api
) -> None:
    api.create(model("tiny"))
    with gateway_process(kubeconfig, tmp_path, MOORAGE_GATEWAY_WORKERS=str(WORKERS)) as gateway:
        assert len(workers(gateway)) == WORKERS
        assert metric(gateway, "moorage_gateway_workers ") == WORKERS
        assert ask(gateway, "/livez").json() == {"ok": True, "reasons": []}
        assert ask(gateway, "/readyz").json() == {"ok": True, "reasons": [], "unwatched": []}
        clients = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(60)]
        try:
            # The kernel deals them out by a hash of their addresses.
            eventually(
                lambda: sum(connections(worker, gateway.port) for worker in workers(gateway)) == 60, "all are taken"
            )
            assert all(connections(worker, gateway.port) for worker in workers(gateway))
        finally:
            for client in clients:
                client.close()
        url, shown = f"http://127.0.0.1:{gateway.admin_port}/demand", token(cluster, "moorage-operator")
        with httpx.stream("GET", url, headers={"Authorization": f"Bearer {shown}"}, trust_env=False) as told:
            assert decode(next(told.iter_lines()).encode()).gateway


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(kubeconfig: Path, tmp_path: Path) -> None:
    with gateway_process(kubeconfig, tmp_path, errors={"a worker has ended"}, MOORAGE_GATEWAY_WORKERS="2") as gateway:
        victim, other = workers(gateway)
        victim.kill()
        eventually(lambda: victim.pid not in {worker.pid for worker in workers(gateway)}, "it is gone")
        for _ in range(20):
            assert serves(gateway)
        eventually(lambda: len(workers(gateway)) == 2, "there are two again")
        eventually(lambda: ask(gateway, "/readyz").status_code == 200, "both are ready", seconds=20)
        assert metric(gateway, "moorage_gateway_worker_starts_total ") == 3
        assert other.pid in {worker.pid for worker in workers(gateway)}
        told = [line for line in gateway.lines() if line["message"] == "a worker has ended"]
        assert [(line["pid"], line["code"]) for line in told] == [(victim.pid, -signal.SIGKILL)]


def test_a_worker_that_hangs_is_seen_by_liveness(kubeconfig: Path, tmp_path: Path) -> None:
    with gateway_process(kubeconfig, tmp_path, MOORAGE_GATEWAY_WORKERS="2") as gateway:
        victim = workers(gateway)[1]
        victim.suspend()
        try:
            answer = ask(gateway, "/livez")
            assert answer.status_code == 503
            assert "no answer" in answer.text
        finally:
            victim.resume()
        eventually(lambda: ask(gateway, "/livez").status_code == 200, "it goes on")


def test_at_the_end_all_that_runs_in_any_worker_is_answered(
    kubeconfig: Path, tmp_path: Path, admin: Api, api: Api
) -> None:
    api.create(model("tiny"))
    key = make_key(admin, f"{api.namespace}-w", models=f"{api.namespace}/*")
    with AnsweringPod().serving() as pod:
        becomes_ready(api, "tiny", pod.port)
        with gateway_process(kubeconfig, tmp_path, MOORAGE_GATEWAY_WORKERS="2") as gateway:
            assert Asking(gateway.url, key, "tiny").join() == [200]
            pod.may_answer.clear()
            asking = Asking(gateway.url, key, "tiny", number=16)
            eventually(lambda: pod.requests == 17, "all are at the pod")
            assert metric(gateway, "moorage_gateway_requests_total") == 1
            processes = workers(gateway)
            gateway.process.send_signal(signal.SIGTERM)
            eventually(lambda: not serves(gateway), "no connection is taken any more")
            assert all(process.is_running() for process in processes)
            pod.may_answer.set()
            assert asking.join() == [200] * 16
            assert gateway.process.wait(20) == 0
            assert not any(process.is_running() for process in processes)
            assert sum(line["message"] == "stopped" for line in gateway.lines()) == 3
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}-w")


def test_without_their_supervisor_workers_end(kubeconfig: Path, tmp_path: Path) -> None:
    settings = {
        **{"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "MOORAGE_GATEWAY_WORKERS": "2"},
        **{"MOORAGE_GATEWAY_HOST": "127.0.0.1", "MOORAGE_GATEWAY_PORT": "0", "MOORAGE_GATEWAY_ADMIN_PORT": "0"},
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "moorage_gateway"], env=settings, stderr=log, cwd="/")
    try:
        supervisor = psutil.Process(process.pid)
        eventually(lambda: (tmp_path / "log").read_text().count("a worker listens") == 2, "both listen", seconds=20)
        children = supervisor.children()
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_a_port_that_somebody_has_is_told(kubeconfig: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {
            **{"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), "MOORAGE_GATEWAY_WORKERS": "2"},
            **{"MOORAGE_GATEWAY_HOST": "127.0.0.1", "MOORAGE_GATEWAY_PORT": str(taken.getsockname()[1])},
            **{"MOORAGE_GATEWAY_ADMIN_PORT": "0"},
        }
        command = [sys.executable, "-m", "moorage_gateway"]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=30, cwd="/")
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Address already in use" in done.stderr


def test_the_chart_sets_what_the_gateway_reads_and_mounts_its_certificate(cluster: Cluster) -> None:
    values = "gateway.enabled=true,gateway.workers=4,gateway.tls.secretName=gateway-tls"
    command = [str(cluster.helm), "template", "moorage", str(ROOT / "charts" / "moorage"), "--set", values]
    rendered = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    (pod,) = (
        document["spec"]["template"]["spec"]
        for document in yaml.safe_load_all(rendered)
        if document and document["kind"] == "Deployment" and document["metadata"]["name"] == "moorage-gateway"
    )
    (container,) = pod["containers"]
    settings = read_settings({entry["name"]: entry["value"] for entry in container["env"]})
    (mount,) = container["volumeMounts"]
    assert settings.workers == 4
    assert (settings.tls_certificate, settings.tls_key) == tuple(
        f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key")
    )
    assert pod["volumes"] == [{"name": mount["name"], "secret": {"secretName": "gateway-tls"}}]
