"""What the nodes offer: the most of each extended resource that one node has. Pure.

Only where the operator may see nodes, which takes a ClusterRole.
"""

from collections.abc import Mapping
from typing import Any


class Nodes:
    """The nodes of the cluster, fed by their watch."""

    def __init__(self) -> None:
        self._offers: dict[str, dict[str, int]] = {}
        self.most: dict[str, int] = {}
        """The most of each extended resource that one node has for pods."""

    def put(self, node: Mapping[str, Any]) -> bool:
        """Takes in a node; returns whether `most` is another now."""
        allocatable: Mapping[str, str] = node.get("status", {}).get("allocatable") or {}
        offer = {name: int(amount) for name, amount in allocatable.items() if "/" in name and amount.isdigit()}
        self._offers[node["metadata"]["name"]] = offer
        return self._changed()

    def remove(self, name: str) -> bool:
        """Takes in that a node is gone; returns whether `most` is another now."""
        self._offers.pop(name, None)
        return self._changed()

    def retain(self, names: set[str]) -> bool:
        """Drops nodes that a full list did not have; returns whether `most` is another now."""
        self._offers = {name: offer for name, offer in self._offers.items() if name in names}
        return self._changed()

    def _changed(self) -> bool:
        before, self.most = self.most, {}
        for offer in self._offers.values():
            for name, amount in offer.items():
                self.most[name] = max(amount, self.most.get(name, 0))
        return self.most != before
