"""What the nodes offer: the most of each extended resource that one node has, and the memory of a GPU. Pure.

Only where the operator may see nodes, which takes a ClusterRole. The memory is in a label that GPU feature
discovery puts on nodes: the name of the resource and `.memory`, in MiB, such as nvidia.com/gpu.memory=81559 (part of
NVIDIA's k8s-device-plugin, docs/gpu-feature-discovery).
"""

import time
from collections.abc import Callable, Mapping, Set
from typing import Any, Final

_MIB: Final = 1024**2
_MOST_DIGITS: Final = 12

DAY_SECONDS: Final = 24 * 3600.0
"""How long what a node had still counts after it went: an autoscaler that took it away can bring another one."""


GONE_KEPT: Final = 1024


class Nodes:
    """The nodes of the cluster, fed by their watch; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: dict[str, dict[int, float]] = {}
        """When an amount ceased to be the most of a resource that one node has."""

        self._known: dict[str, tuple[str, int]] = {}
        """The uid and resourceVersion of each node; news of the watch and lists come in any order."""
        self._gone: dict[str, None] = {}
        """The uids of deleted nodes, so that no late news restores one."""
        self._offers: dict[str, dict[str, tuple[int, int]]] = {}
        self.most: dict[str, int] = {}
        """The most of each extended resource that one node has for pods."""

        self.gpu_memory: dict[str, dict[int, int]] = {}
        """Bytes of one GPU by resource and by how many of it a node has: of several such nodes the most."""

    def put(self, node: Mapping[str, Any]) -> bool:
        """Takes in a node; returns whether what is offered is another now."""
        metadata = node["metadata"]
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        if uid in self._gone or version < self._known.get(metadata["name"], ("", 0))[1]:
            return False
        self._known[metadata["name"]] = uid, version
        allocatable: Mapping[str, str] = node.get("status", {}).get("allocatable") or {}
        labels: Mapping[str, str] = metadata.get("labels") or {}
        self._offers[metadata["name"]] = {
            name: (int(amount), _memory(labels, name))
            for name, amount in allocatable.items()
            if "/" in name and amount.isdigit()
        }
        return self._changed()

    def remove(self, node: Mapping[str, Any]) -> bool:
        """Takes in that a node is gone; returns whether what is offered is another now."""
        self._drop(node["metadata"]["name"], node["metadata"]["uid"])
        return self._changed()

    def retain(self, uids: Set[str], version: int) -> bool:
        """Drops nodes that a full list at `version` did not have; returns whether what is offered is another now."""
        for name, (uid, known) in list(self._known.items()):
            if uid not in uids and known <= version:
                self._drop(name, uid)
        return self._changed()

    def _drop(self, name: str, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        if self._known.get(name, ("", 0))[0] == uid:
            del self._known[name], self._offers[name]

    def most_lately(self) -> dict[str, int]:
        """The most of each extended resource that one node has, or had in the last day."""
        since = self._clock() - DAY_SECONDS
        found = dict(self.most)
        for name, amounts in self._lost.items():
            found[name] = max([found.get(name, 0), *(amount for amount, at in amounts.items() if at > since)])
        return found

    def _lose(self, before: Mapping[str, int]) -> None:
        now, since = self._clock(), self._clock() - DAY_SECONDS
        for name, amount in before.items():
            if amount > self.most.get(name, 0):
                kept = {known: at for known, at in self._lost.get(name, {}).items() if at > since}
                self._lost[name] = {**kept, amount: now}

    def _changed(self) -> bool:
        before, self.most, self.gpu_memory = (self.most, self.gpu_memory), {}, {}
        for offer in self._offers.values():
            for name, (amount, memory) in offer.items():
                self.most[name] = max(amount, self.most.get(name, 0))
                if amount and memory:
                    by_count = self.gpu_memory.setdefault(name, {})
                    by_count[amount] = max(memory, by_count.get(amount, 0))
        self._lose(before[0])
        return (self.most, self.gpu_memory) != before


def _memory(labels: Mapping[str, str], resource: str) -> int:
    text = labels.get(f"{resource}.memory", "")
    return int(text) * _MIB if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0
