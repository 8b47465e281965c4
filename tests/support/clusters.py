"""Clusters of the tests' own, never that of `make demo`, and never that of another run of the tests."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.api import Cluster, ClusterOptions, down, up
from hack.cluster.locking import first_unlocked
from hack.cluster.paths import clusters_root

_CHECKOUT = Path(__file__).resolve().parents[2]
_RUNS = range(1, 10)
"""Runs of one checkout's tests at a time."""


@contextmanager
def own_name(suite: str) -> Iterator[str]:
    """A name that no other run uses meanwhile: of the suite, the checkout and, in one checkout, the run.

    It is one of few, so that a run finds what a killed run left, and removes it.
    """
    digest = hashlib.sha256(str(_CHECKOUT).encode()).hexdigest()[:6]
    names = {clusters_root() / f".{name}-run.lock": name for run in _RUNS if (name := f"{suite}-{digest}-{run}")}
    with first_unlocked(names) as path:
        down(names[path])
        yield names[path]


@contextmanager
def own_cluster(suite: str, *, control_plane_only: bool = False, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster that is new, and gone afterwards unless MOORAGE_KEEP_CLUSTER is set, to look at it after a failure.

    The next run begins anew in any case.
    """
    with own_name(suite) as name:
        try:
            yield up(ClusterOptions(name=name, control_plane_only=control_plane_only, gpus=gpus))
        finally:
            if not os.environ.get("MOORAGE_KEEP_CLUSTER"):
                down(name)
