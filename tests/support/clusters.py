"""Clusters of the tests' own, never that of `make demo`, and never that of another checkout's tests."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster.api import Cluster, ClusterOptions, down, up
from hack.cluster.locking import locked
from hack.cluster.paths import clusters_root

_CHECKOUT = Path(__file__).resolve().parents[2]


def cluster_name(suite: str) -> str:
    """The name of a suite's cluster: with a digest of the checkout's path, as several may be tested at a time.

    MOORAGE_TEST_CLUSTER=TEXT makes it another one, for a second run in the same checkout.
    """
    what = f"{_CHECKOUT} {os.environ.get('MOORAGE_TEST_CLUSTER', '')}"
    return f"{suite}-{hashlib.sha256(what.encode()).hexdigest()[:6]}"


@contextmanager
def own_cluster(suite: str, *, control_plane_only: bool = False, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster that is new, and gone afterwards unless MOORAGE_KEEP_CLUSTER is set, to look at it after a failure.

    The next run begins anew in any case. A second run in the same checkout waits for the first.
    """
    name = cluster_name(suite)
    with locked(clusters_root() / f".{name}-run.lock", f"another test run, which uses cluster {name}"):
        down(name)
        try:
            yield up(ClusterOptions(name=name, control_plane_only=control_plane_only, gpus=gpus))
        finally:
            if not os.environ.get("MOORAGE_KEEP_CLUSTER"):
                down(name)
