"""The handle of a running cluster, the same for every provider."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.host import fakenodes
from hack.cluster.host.client import ApiClient, wait_until
from hack.cluster.host.control_plane import Site
from hack.cluster.host.process import (
    KILL_SECONDS,
    ProcessRecord,
    kill_all,
    read_records,
    send_signal,
    spawn,
    wait_for_end,
)
from hack.cluster.options import ClusterOptions

READY_SECONDS = 60.0


@dataclass(frozen=True)
class ComponentStatus:
    """One line of `status`."""

    component: str
    pid: int
    alive: bool


@dataclass(frozen=True)
class Cluster:
    """Files and binaries of a running cluster, and what tests do to its components."""

    options: ClusterOptions
    site: Site

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, the project's own."""
        return self.site.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """One JSON line for each write to the API."""
        return self.site.layout.audit_log

    @property
    def kubectl(self) -> Path:
        return self.site.binaries["kubectl"]

    @property
    def helm(self) -> Path:
        return self.site.binaries["helm"]

    def add_fake_node(self, name: str, gpus: int) -> None:
        """Add a node that exists for the scheduler only, and wait until it is ready."""
        fakenodes.add_fake_node(self.site, ApiClient(self.kubeconfig), name, gpus)

    def pid(self, component: str) -> int:
        """Give the process id of a component that this host runs, such as "etcd" or "kube-apiserver"."""
        return self._record(component).pid

    def signal(self, component: str, number: signal.Signals) -> None:
        """Send a component a signal; SIGSTOP freezes it, SIGCONT lets it go on."""
        if not send_signal(self._record(component), number):
            raise ClusterError(f"{component} of cluster {self.options.name} is not running.")

    def kill(self, component: str) -> None:
        """Kill a component and wait until it is gone."""
        kill_all([self._record(component)])

    def wait_until_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until the API server is ready, after a component was started again."""
        client = ApiClient(self.kubeconfig)
        what = f"the API server of cluster {self.options.name} becoming ready"
        wait_until(what, lambda: client.answers("/readyz"), timeout=timeout, alive=lambda: None)

    def wait_for_end(self, component: str, timeout: float = KILL_SECONDS) -> bool:
        """Wait until a component that was told to end has ended."""
        return wait_for_end(self._record(component), timeout)

    def start(self, component: str) -> None:
        """Start a component again as it was started first; one that runs is left alone."""
        record = self._record(component)
        if not record.is_alive:
            spawn(self.site.layout, record.command)

    def _record(self, component: str) -> ProcessRecord:
        records = read_records(self.site.layout)
        if component not in records:
            known = ", ".join(records) or "none"
            message = f"Cluster {self.options.name} has no component {component!r} on this host; it has: {known}."
            raise ClusterError(message)
        return records[component]
