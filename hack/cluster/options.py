"""What a caller may ask of a cluster; checked here once, trusted everywhere after."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hack.cluster.errors import ClusterError

DEFAULT_NAME = "moorage"
MAX_GPUS_PER_NODE = 8
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True)
class ClusterOptions:
    """A cluster's name and kind, and how many fake GPUs it carries."""

    name: str = DEFAULT_NAME
    control_plane_only: bool = False
    gpus: int = 0
    provider: str = "auto"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(f"{self.name!r} is no cluster name: lower-case letters, digits and '-', at most 20.")
        if self.gpus < 0:
            raise ClusterError(f"gpus is {self.gpus}; it must be 0 or more.")
        if self.provider not in ("auto", "host", "kind"):
            raise ClusterError(f"provider is {self.provider!r}; it must be auto, host or kind.")


def fake_node_sizes(gpus: int) -> list[int]:
    """Spread GPUs over fake nodes of at most eight each, as real machines have them.

    >>> fake_node_sizes(8), fake_node_sizes(10), fake_node_sizes(0)
    ([8], [8, 2], [])
    """
    full, rest = divmod(gpus, MAX_GPUS_PER_NODE)
    return [MAX_GPUS_PER_NODE] * full + ([rest] if rest else [])
