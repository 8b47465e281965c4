"""What the nodes offer: the most of each extended resource that one node has, and the memory of a GPU. Pure.

Only where the operator may see nodes, which takes a ClusterRole. The memory is told by a label that GPU feature
discovery puts on nodes: the name of the resource and `.memory`, in MiB, such as nvidia.com/gpu.memory=81559 (part of
NVIDIA's k8s-device-plugin, docs/gpu-feature-discovery).
"""

from collections.abc import Mapping
from typing import Any, Final

_MIB: Final = 1024**2
_MOST_DIGITS: Final = 12


class Nodes:
    """The nodes of the cluster, fed by their watch."""

    def __init__(self) -> None:
        self._offers: dict[str, dict[str, tuple[int, int]]] = {}
        self.most: dict[str, int] = {}
        """The most of each extended resource that one node has for pods."""

        self.gpu_memory: dict[str, dict[int, int]] = {}
        """Bytes of one GPU by resource and by how many of it a node has: of several such nodes the most."""

    def put(self, node: Mapping[str, Any]) -> bool:
        """Takes in a node; returns whether what is offered is another now."""
        allocatable: Mapping[str, str] = node.get("status", {}).get("allocatable") or {}
        labels: Mapping[str, str] = node["metadata"].get("labels") or {}
        self._offers[node["metadata"]["name"]] = {
            name: (int(amount), _memory(labels, name))
            for name, amount in allocatable.items()
            if "/" in name and amount.isdigit()
        }
        return self._changed()

    def remove(self, name: str) -> bool:
        """Takes in that a node is gone; returns whether what is offered is another now."""
        self._offers.pop(name, None)
        return self._changed()

    def retain(self, names: set[str]) -> bool:
        """Drops nodes that a full list did not have; returns whether what is offered is another now."""
        self._offers = {name: offer for name, offer in self._offers.items() if name in names}
        return self._changed()

    def _changed(self) -> bool:
        before, self.most, self.gpu_memory = (self.most, self.gpu_memory), {}, {}
        for offer in self._offers.values():
            for name, (amount, memory) in offer.items():
                self.most[name] = max(amount, self.most.get(name, 0))
                if amount and memory:
                    by_count = self.gpu_memory.setdefault(name, {})
                    by_count[amount] = max(memory, by_count.get(amount, 0))
        return (self.most, self.gpu_memory) != before


def _memory(labels: Mapping[str, str], resource: str) -> int:
    text = labels.get(f"{resource}.memory", "")
    return int(text) * _MIB if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0
