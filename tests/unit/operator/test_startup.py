"""How long a start took, from the times that a pod bears; in a status, and as a metric once for each start."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from moorage_operator.api.key import Key
from moorage_operator.metrics import StartMetrics
from moorage_operator.status import status
from moorage_operator.status.observe import Observation, PodState, pod_state
from moorage_operator.status.startup import Start
from tests.unit.operator.situations import LOADED, UNREADY, deployment, placed, ready
from tests.unit.operator.support import NAMESPACE, Object, live_pod, model, thorough

TINY = Key(NAMESPACE, "tiny")
NOW, LATER = "2026-01-02T05:00:00Z", "2026-01-02T06:00:00Z"


def at(seconds: int) -> str:
    """A time after the pod was made, as the API writes it."""
    return f"2026-01-02T03:{4 + seconds // 60:02d}:{seconds % 60:02d}Z"


def started(
    scheduled: int = 3, began: int = 10, ready_at: int = 40, *, restarts: int = 0, download: Object | None = None
) -> Object:
    """A ready pod that was made at 0."""
    pod = live_pod(
        ready=True,
        container={"state": {"running": {"startedAt": at(began)}}, "restartCount": restarts},
        conditions=({"type": "PodScheduled", "status": "True", "lastTransitionTime": at(scheduled)},),
        creationTimestamp=at(0),
    )
    pod["status"]["conditions"][-1]["lastTransitionTime"] = at(ready_at)
    if download:
        pod["status"]["initContainerStatuses"] = [{"name": "injected", "state": {}}, download]
    return pod


def terminated(begin: int, end: int, name: str = "fetch") -> Object:
    """An init container that has ended."""
    return {"name": name, "state": {"terminated": {"startedAt": at(begin), "finishedAt": at(end)}}}


def test_a_start_has_its_phases() -> None:
    assert pod_state(started()).start == Start(at(10), queued=3, image=7, load=30)


def test_a_download_is_a_phase_of_its_own() -> None:
    found = pod_state(started(3, 60, 90, download=terminated(10, 50))).start
    assert found == Start(at(60), queued=3, image=17, load=30, download=40)
    assert found.phases() == {"queued": 3, "image": 17, "download": 40, "load": 30, "total": 90}


def test_an_init_container_of_others_is_no_download() -> None:
    assert pod_state(started(download=terminated(4, 9, name="proxy-init"))).start == Start(at(10), 3, 7, 30)


def test_a_container_that_starts_again_neither_waits_nor_pulls() -> None:
    assert pod_state(started(3, 100, 130, restarts=1)).start == Start(at(100), 0, 0, 30)


@pytest.mark.parametrize("missing", ["PodScheduled", "Ready", "startedAt", "creationTimestamp"])
def test_without_one_of_the_times_nothing_is_said(missing: str) -> None:
    pod = started()
    for condition in pod["status"]["conditions"]:
        if condition["type"] == missing:
            del condition["lastTransitionTime"]
    pod["metadata"].pop(missing, None)
    pod["status"]["containerStatuses"][0]["state"]["running"].pop(missing, None)
    assert pod_state(pod).start is None


@pytest.mark.parametrize("odd", ["", "yesterday", "2026-13-01T00:00:00Z", "\u0663"])
def test_a_time_that_is_none_is_no_time(odd: str) -> None:
    pod = started()
    pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = odd
    assert pod_state(pod).start is None


def test_a_pod_that_is_not_ready_has_not_started() -> None:
    pod = started()
    pod["status"]["conditions"][-1]["status"] = "False"
    assert pod_state(pod).start is None


@thorough
@given(*[st.integers(0, 300)] * 3, st.none() | st.tuples(st.integers(0, 300), st.integers(0, 300)))
def test_whatever_the_clocks_say_no_phase_is_negative_and_all_add_up(
    scheduled: int, began: int, ready_at: int, download: tuple[int, int] | None
) -> None:
    pod = started(scheduled, began, ready_at, download=terminated(*download) if download else None)
    found = pod_state(pod).start
    assert found is not None
    phases = found.phases()
    assert min(phases.values()) >= 0
    assert phases.pop("total") == sum(phases.values()) >= ready_at - 300
    if scheduled <= began <= ready_at:
        assert found.total == ready_at


# -- the status --------------------------------------------------------------------------------------------------------

FIRST = Start("2026-01-02T03:04:10Z", 3, 7, 30)
SECOND = Start("2026-01-02T04:00:00Z", 0, 1, 5)


def told(before: Object | None, *pods: PodState) -> Object:
    """What the status says of the last start."""
    seen = Observation(deployment(), pods, {pod.uid: LOADED for pod in pods})
    found: Object = status(model(status=before), seen, NOW).get("startup", {})
    return found


def test_the_status_tells_the_last_start() -> None:
    assert told(None, ready("a", start=FIRST)) == {
        "pod": "a",
        "startedAt": "2026-01-02T03:04:10Z",
        "queuedSeconds": 3,
        "imageSeconds": 7,
        "loadSeconds": 30,
        "totalSeconds": 40,
    }
    both = (ready("b", start=SECOND), ready("a", start=FIRST))
    assert told(None, *both)["pod"] == "b"


def test_a_download_is_in_the_status_where_there_was_one() -> None:
    assert told(None, ready("a", start=FIRST._replace(download=5)))["downloadSeconds"] == 5


def test_a_pod_that_only_was_not_ready_for_a_while_has_not_started_again() -> None:
    first = told(None, ready("a", start=FIRST))
    # Its Ready is of a later time now, so that the load would seem to have taken that long.
    assert told({"startup": first}, ready("a", start=FIRST._replace(load=3000))) == first


def test_an_earlier_start_never_replaces_a_later_one() -> None:
    last = told(None, ready("b", start=SECOND))
    assert told({"startup": last}, ready("a", start=FIRST)) == last


def test_the_last_start_stays_while_nothing_runs() -> None:
    last = told(None, ready("a", start=FIRST))
    found = status(model(status={"startup": last}), Observation(UNREADY, (placed("c"),)), LATER)
    assert found["startup"] == last


# -- the metric --------------------------------------------------------------------------------------------------------


@pytest.fixture
def counts() -> Iterator[Any]:
    """How many starts were observed since the test began, and the sum of their seconds in all."""

    def sample(name: str) -> float:
        return REGISTRY.get_sample_value(f"moorage_model_startup_seconds_{name}", {"phase": "total"}) or 0.0

    before = sample("count"), sample("sum")
    yield lambda: (sample("count") - before[0], sample("sum") - before[1])


def test_each_start_is_observed_once(counts: Any) -> None:
    metrics = StartMetrics()
    metrics.observe(TINY, (), {})
    pods = (ready("a", start=FIRST), ready("b", start=FIRST._replace(load=10)))
    for _ in range(3):
        metrics.observe(TINY, pods, {})
    assert counts() == (2, 40 + 20), "two that began in the same second are two"


def test_a_pod_that_is_ready_again_is_not_observed_again_but_a_container_that_starts_anew_is(counts: Any) -> None:
    metrics = StartMetrics()
    metrics.observe(TINY, (ready("a", start=FIRST),), {})
    metrics.observe(TINY, (placed("a"),), {})
    metrics.observe(TINY, (ready("a", start=FIRST._replace(load=99)),), {})
    assert counts() == (1, 40)
    metrics.observe(TINY, (ready("a", start=SECOND),), {})
    assert counts() == (2, 46)


def test_what_a_status_has_told_is_no_news_to_an_operator_that_has_just_started(counts: Any) -> None:
    metrics = StartMetrics()
    metrics.observe(TINY, (ready("a", start=FIRST), ready("b", start=SECOND)), {"startedAt": FIRST.began, "pod": "a"})
    assert counts() == (1, 6)


def test_a_model_that_is_gone_is_forgotten(counts: Any) -> None:
    metrics = StartMetrics()
    metrics.observe(TINY, (ready("a", start=FIRST),), {})
    metrics.forget(TINY)
    metrics.forget(TINY)
    metrics.observe(TINY, (), {})
    metrics.observe(TINY, (ready("a", start=SECOND),), {})
    assert counts() == (2, 46)
