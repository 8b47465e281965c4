"""How long our operator is blind when kopf ends inside it: from the fault until every kind is watched again."""

import asyncio
import time
from pathlib import Path

from hack.bench._operator_sides import Ours, wait_until_idle
from hack.cluster.api import Cluster
from tests.chaos.bed import kubeconfig_through, proxy_of
from tests.support.fault_proxy import Call, FaultProxy

AT_MOST_SECONDS = 30.0
FAULTY = "services"
"""The kind whose watch ends with an ERROR of 500, which kopf does not survive: `kopf.operator()` raises."""


async def kopf_restart_seconds(cluster: Cluster, kubeconfig: Path, folder: Path) -> float | None:
    """Seconds until the same process has begun a watch of every kind again, those that did not fail included.

    None if it has not within `AT_MOST_SECONDS`, or has ended: then kopf was not ended, or not started anew.
    """
    with proxy_of(cluster) as proxy:
        ours = Ours(kubeconfig_through(proxy, kubeconfig, folder / "through-proxy"), folder / "restart.log")
        ours.start()
        try:
            await wait_until_idle(ours)
            kinds, position = watched(proxy.calls()), proxy.position()
            began = time.monotonic()
            proxy.fail_watches(500, "InternalError", FAULTY)
            seen = await _all_watched(proxy, position, kinds)
            return seen - began if seen and not ours.ended() else None
        finally:
            ours.stop()


def watched(calls: list[Call]) -> dict[str, float]:
    """The kinds of which a watch was begun, with the time of the first."""
    times: dict[str, float] = {}
    for call in calls:
        if call.verb == "watch":
            times.setdefault(call.resource, call.at)
    return times


async def _all_watched(proxy: FaultProxy, position: int, kinds: dict[str, float]) -> float | None:
    end = time.monotonic() + AT_MOST_SECONDS
    while time.monotonic() < end:
        times = watched(proxy.calls(position))
        if kinds.keys() <= times.keys():
            return max(times[kind] for kind in kinds)
        await asyncio.sleep(0.05)  # the proxy tells nobody of its calls
    return None
