"""Which networks a cluster with a node uses: each has a number of its own, so that several can run on one machine.

The node's processes and its pods are in a network namespace of the cluster's own, with a bridge. A pair of virtual
interfaces joins it to the host: the API server and CoreDNS listen on the host's end, and the host has routes to pods
and Services, so that a person reaches both by their addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
NODE_NAME = "moorage-node"
BRIDGE = "moorage0"
"""In the cluster's namespace, so that its name is the same in all."""
UPLINK = "uplink"
"""The namespace's end of the pair."""
MAX_CLUSTERS = 16
"""Clusters with a node on one machine: their Services share the range that kubeadm takes, 10.96.0.0/12."""


@dataclass(frozen=True)
class Addresses:
    """The addresses of the cluster with this number.

    >>> first, second = Addresses(0), Addresses(1)
    >>> first.pods, first.services, second.pods, second.services
    ('10.244.0.0/24', '10.96.0.0/16', '10.244.1.0/24', '10.97.0.0/16')
    """

    number: int

    @property
    def link(self) -> str:
        """The host's end of the pair."""
        return f"moorage{self.number}"

    @property
    def transit(self) -> str:
        """The network of the pair."""
        return f"10.243.{self.number}.0/30"

    @property
    def host(self) -> str:
        """Where the API server and CoreDNS are found, by pods and by this machine."""
        return f"10.243.{self.number}.1"

    @property
    def uplink(self) -> str:
        """The next hop from the host to pods and Services."""
        return f"10.243.{self.number}.2"

    @property
    def node(self) -> str:
        """The node's own address, on the bridge: the gateway of its pods."""
        return f"10.244.{self.number}.1"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def services(self) -> str:
        return f"10.{96 + self.number}.0.0/16"

    @property
    def first_service(self) -> str:
        """The Service `kubernetes`."""
        return f"10.{96 + self.number}.0.1"
