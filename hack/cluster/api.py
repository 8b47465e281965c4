"""The package's face for Python: tests and the demo call `up` and `down`, and work with the `Cluster` that they get."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from hack.cluster import doctor
from hack.cluster.cluster import Cluster, ComponentStatus
from hack.cluster.errors import ClusterError
from hack.cluster.host.layout import Layout
from hack.cluster.locking import locked
from hack.cluster.options import ClusterOptions
from hack.cluster.providers import Provider, provider_for, provider_of

__all__ = ["Cluster", "ClusterOptions", "ComponentStatus", "build", "down", "load_images", "status", "up"]


def build(options: ClusterOptions) -> None:
    """Build the binaries of such a cluster, and start nothing."""
    provider_for(options.provider).build(options)


def up(options: ClusterOptions) -> Cluster:
    """Give a ready cluster as asked for; one that already runs is used again."""
    provider = provider_for(options.provider)
    doctor.require(provider.missing(options))
    with _exclusive(options.name):
        return provider.up(options)


def down(name: str) -> None:
    """Remove a cluster and everything that it left on this machine; no cluster is fine too."""
    with _exclusive(name):
        _provider(name).down(name)


def load_images(name: str, archives: list[Path]) -> None:
    """Put OCI image archives where the cluster's kubelet finds them."""
    absent = [str(archive) for archive in archives if not archive.is_file()]
    if absent:
        raise ClusterError(f"No such image archive: {', '.join(absent)}")
    _provider(name).load_images(name, archives)


def status(name: str) -> list[ComponentStatus]:
    """Say of each component whether it runs; no components, no cluster."""
    return _provider(name).status(name)


def _provider(name: str) -> Provider:
    return provider_of(ClusterOptions(name=name).name)


def _exclusive(name: str) -> AbstractContextManager[None]:
    return locked(Layout.of(name).lock, f"another process that starts or ends cluster {name}")
