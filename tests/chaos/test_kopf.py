"""Faults that end kopf, or that it does not see: the operator begins anew in place, or has bridges of its own."""

import time

import pytest

from tests.chaos.bed import Bed
from tests.chaos.pace import LIMIT, lasting
from tests.support.fault_proxy import READS, Rule, answer

AGAIN_LIMIT = 5.0
"""Seconds from the fault's end until everything is watched again; the benchmark has the figure of a quiet machine."""
REQUESTS_A_SECOND = 2.0


def is_ready(bed: Bed, within: float) -> float:
    """Waits until it is ready, which takes everything being watched; returns the seconds that took."""
    began = time.monotonic()
    while bed.operator.not_ready():
        assert time.monotonic() - began < within, bed.operator.not_ready()
        time.sleep(0.02)  # readiness is asked, as the kubelet does; there is nothing to wait on
    return time.monotonic() - began


@pytest.mark.parametrize("failing", ["deployments", "inferencemodels"])
def test_fault_06_one_watch_fails_while_the_others_are_refused(bed: Bed, failing: str) -> None:
    """kopf ends for the one, and never, for the others are in the middle of a request (nolar/kopf#1168)."""
    bed.create()
    bed.settles()
    assert bed.operator.process is not None
    pid = bed.operator.process.pid
    others = {"inferencemodels", "deployments", "services", "poddisruptionbudgets", "pods", "nodes"} - {failing}
    refusals = bed.proxy.add(Rule(answer(503, "ServiceUnavailable"), verbs=READS, resources=others))
    bed.proxy.cut(*others)
    assert refusals.hit.wait(LIMIT)
    assert bed.proxy.fail_watches(500, "InternalError", failing) == 1
    bed.edit(replicas=2)
    # It must not be seen as ready before it has begun anew.
    deadline = time.monotonic() + LIMIT
    while not bed.operator.not_ready():
        assert time.monotonic() < deadline, "kopf has not ended"
        time.sleep(0.02)
    bed.proxy.clear()
    bed.scenario.note(f"ready again after {is_ready(bed, AGAIN_LIMIT):.1f} s, same pid")
    assert bed.operator.is_alive()
    assert bed.operator.process.pid == pid
    bed.converges()
    bed.invariants_hold()


def test_fault_07_a_list_again_with_deletions_meanwhile(bed: Bed, garbage_collector: None) -> None:
    """After 410 kopf lists again, and reports nothing of what has gone."""
    for name in ("changed", "deleted", "broken"):
        bed.create(name)
    bed.settles()
    bed.proxy.silence()
    bed.api.delete("InferenceModel", "deleted")
    bed.api.wait("Deployment", "deleted", lambda found: found is None, what="collected", seconds=60)
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        bed.api.delete(kind, "broken")
    bed.edit("changed", replicas=2)
    assert bed.proxy.fail_watches(410, "Expired") >= 6
    bed.converges()
    bed.invariants_hold()


def test_fault_11_credentials_are_refused_for_a_minute(bed: Bed) -> None:
    """kopf logs in again at once, with every watch: 50 requests a second."""
    bed.create()
    bed.settles()
    refusals = bed.proxy.add(Rule(answer(401, "Unauthorized")))
    bed.proxy.cut()
    assert refusals.hit.wait(LIMIT)
    seconds = lasting(60, at_least=12)
    bed.edit(replicas=2)
    began = time.monotonic()
    assert not bed.operator.ends_within(seconds)
    # The first of each watch are on their way before the first refusal has arrived.
    sent = len([call for call in refusals.calls if call.at > began + 2])
    bed.scenario.note(f"{sent} requests in {seconds - 2:.0f} s")
    assert sent <= REQUESTS_A_SECOND * (seconds - 2)
    bed.proxy.clear()
    bed.converges()
    bed.invariants_hold()
