"""The host provider: a cluster of processes on this machine, from its options to a ready API and back to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hack.cluster.cluster import Cluster, ComponentStatus
from hack.cluster.doctor import Missing, missing_for_host
from hack.cluster.errors import ClusterError, StartError
from hack.cluster.host import cleanup, fakenodes, images, network, node, start, sysctls
from hack.cluster.host.client import ApiClient, wait_until
from hack.cluster.host.control_plane import Plan, Site
from hack.cluster.host.layout import Layout, Record, chosen_ports, pick_endpoints
from hack.cluster.host.process import read_records, spawn
from hack.cluster.options import ClusterOptions
from hack.cluster.progress import say, step
from hack.cluster.toolchain.builder import ToolCache, ensure_built
from hack.cluster.toolchain.catalog import binaries_of, groups_for


class HostProvider:
    """Runs clusters as processes of this host."""

    name = "host"

    def missing(self, options: ClusterOptions) -> list[Missing]:
        """Say what the machine lacks for such a cluster."""
        return missing_for_host(options)

    def build(self, options: ClusterOptions) -> None:
        """Build the binaries of such a cluster."""
        ensure_built(groups_for(control_plane_only=options.control_plane_only))

    def up(self, options: ClusterOptions) -> Cluster:
        """Give a ready cluster: the running one if it is healthy, else a new one."""
        layout = Layout.of(options.name)
        self.build(options)
        record = Record.read(layout)
        if record and is_healthy(layout, record):
            return self._go_on(layout, record, options)
        if layout.root.exists() or layout.run.exists():
            with step(f"remove what is left of an earlier cluster {options.name}"):
                cleanup.remove_cluster(layout)
        self._start(layout, options)
        return cluster_of(options)

    def down(self, name: str) -> None:
        """Remove a cluster, whatever state it is in."""
        cleanup.remove_cluster(Layout.of(name))

    def load_images(self, name: str, archives: list[Path]) -> None:
        """Import image archives into the node."""
        layout = Layout.of(name)
        record = Record.read(layout)
        if record is None or record.options.control_plane_only:
            raise ClusterError(f"Cluster {name} has no node that could take images.")
        images.load_archives(plan_of(layout, record), archives)

    def status(self, name: str) -> list[ComponentStatus]:
        """Say of each component whether it runs."""
        records = read_records(Layout.of(name)).values()
        return [ComponentStatus(record.component, record.pid, record.is_alive) for record in records]

    def _go_on(self, layout: Layout, record: Record, options: ClusterOptions) -> Cluster:
        if record.options.control_plane_only != options.control_plane_only:
            kind = "a control plane only" if record.options.control_plane_only else "a cluster with a node"
            raise ClusterError(f"Cluster {options.name} is already running, as {kind}.", hint=_down_hint(options.name))
        say(f"  cluster {options.name} is already running")
        plan = plan_of(layout, record)
        fakenodes.reconcile_fake_nodes(plan, ApiClient(layout.kubeconfig), options.gpus, lambda: None)
        Record(options, record.endpoints, ready=True).write(layout)
        return cluster_of(options)

    def _start(self, layout: Layout, options: ClusterOptions) -> None:
        if not options.control_plane_only:
            layout.check_socket_paths()
        with step(f"start cluster {options.name}"):
            try:
                record = _claim(layout, options)
                _start_components(plan_of(layout, record), options)
            except KeyboardInterrupt:
                cleanup.remove_cluster(layout)
                raise
            except (ClusterError, OSError) as error:
                cleanup.remove_cluster(layout, keep_logs=True)
                raise StartError(str(error), hint=f"All logs are in {layout.root / 'logs'}") from error
        replace(record, ready=True).write(layout)


def is_healthy(layout: Layout, record: Record) -> bool:
    """Say whether a cluster's start was finished, all its processes live, by today's binaries, and its API is ready."""
    records = read_records(layout)
    if not record.ready or not records or not all(process.is_alive for process in records.values()):
        return False
    binaries = plan_of(layout, record).binaries
    if any(process.argv[0] != str(binaries.get(name)) for name, process in records.items()):
        return False
    return ApiClient(layout.kubeconfig).answers("/readyz")


def plan_of(layout: Layout, record: Record) -> Plan:
    """Give what the pure functions need to know."""
    groups = groups_for(control_plane_only=record.options.control_plane_only)
    binaries = binaries_of(groups, ToolCache.default().bin_root)
    return Plan(layout, binaries, record.options.control_plane_only, record.endpoints)


def cluster_of(options: ClusterOptions) -> Cluster:
    """Give the handle of a host cluster."""
    binaries = binaries_of(groups_for(control_plane_only=options.control_plane_only), ToolCache.default().bin_root)
    return Cluster(options, Site(Layout.of(options.name), binaries, options.control_plane_only))


def _start_components(plan: Plan, options: ClusterOptions) -> None:
    timer = start.Timer()
    start.write_files(plan)
    if not plan.control_plane_only:
        spawn(plan.layout, node.containerd(plan))
    timer.mark("files")
    client = start.start_control_plane(plan, timer)
    if not plan.control_plane_only:
        alive = start.guard(plan.layout)
        wait_until("containerd answering", lambda: images.containerd_answers(plan), timeout=30, alive=alive)
        images.load_pause_image(plan)
        start.start_node(plan, client, timer)
    start.await_controllers(plan, client, timer)
    start.add_gpus(plan, client, options.gpus, timer)


def _claim(layout: Layout, options: ClusterOptions) -> Record:
    """Take what no other cluster on this machine has, and write it down."""
    layout.root.mkdir(parents=True, mode=0o700)
    with cleanup.machine_lock():
        addresses = None
        if not options.control_plane_only:
            layout.run.mkdir(parents=True, exist_ok=True, mode=0o711)
            sysctls.save_sysctls()
            addresses = network.claim_network(layout)
        record = Record(options, pick_endpoints(addresses, chosen_ports()), ready=False)
        record.write(layout)
    if addresses:
        network.create_network(layout, addresses)
    return record


def _down_hint(name: str) -> str:
    return f"End it first: python -m hack.cluster down --name {name}"
