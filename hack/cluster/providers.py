"""The one interface behind which clusters are made, and the choice between its implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hack.cluster.cluster import Cluster, ComponentStatus
from hack.cluster.doctor import Missing
from hack.cluster.host.provider import HostProvider
from hack.cluster.kind import KindProvider, docker_answers
from hack.cluster.options import ClusterOptions


class Provider(Protocol):
    """Makes clusters of one kind."""

    name: str

    def missing(self, options: ClusterOptions) -> list[Missing]:
        """List what the machine lacks."""

    def build(self, options: ClusterOptions) -> None:
        """Build the binaries that such a cluster needs and the cache lacks."""

    def up(self, options: ClusterOptions) -> Cluster:
        """Start a cluster, or find it running."""

    def down(self, name: str) -> None:
        """Remove a cluster completely."""

    def load_images(self, name: str, archives: list[Path]) -> None:
        """Give the cluster's node images from archives."""

    def status(self, name: str) -> list[ComponentStatus]:
        """List components and whether they run."""


def provider_for(name: str) -> Provider:
    """Give the provider of that name; `auto` takes kind where a Docker engine answers."""
    if name == "auto":
        name = "kind" if docker_answers() else "host"
    return KindProvider() if name == "kind" else HostProvider()


def provider_of(cluster: str) -> Provider:
    """Give the provider that made an existing cluster; the host's where none did."""
    return KindProvider() if KindProvider.made(cluster) else HostProvider()
