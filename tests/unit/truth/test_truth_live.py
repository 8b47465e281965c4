"""Asking a cluster again and again: for how long something is false, and when that is too long."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.api import Api, ApiRefusedError
from tests.truth import Truth
from tests.truth.judge import Falsehood
from tests.truth.live import BUSIEST, Clock, busy_factor
from tests.truth.objects import Object
from tests.truth.world import PATHS
from tests.unit.truth.scene import NAMESPACE, Scene

VERSION = "77"


class FakeApi:
    """Answers lists from a scene; `before_look` is called with the number of each look before it is answered."""

    namespace = NAMESPACE

    def __init__(self, scene: Scene) -> None:
        self.scene, self.looks = scene, 0
        self.before_look: Callable[[int], None] = lambda _look: None
        self.expired: set[int] = set()

    def request(self, method: str, path: str, *, params: dict[str, str]) -> Object:
        """A list, as it was at one version for all kinds."""
        kind = next(name for name, listed in PATHS.items() if listed == path)
        assert method == "GET"
        if kind == "InferenceModel":
            self.looks += 1
            self.before_look(self.looks)
            assert "resourceVersion" not in params
        else:
            assert params["resourceVersion"] == VERSION
            assert params["resourceVersionMatch"] == "Exact"
        if kind == "Pod" and self.looks in self.expired:
            raise ApiRefusedError(410, "too old")
        return {"metadata": {"resourceVersion": VERSION}, "items": list(self.scene.found[kind])}


@pytest.fixture
def api() -> FakeApi:
    scene = Scene()
    scene.serving()
    return FakeApi(scene)


def truth_of(api: FakeApi, **options: Any) -> Truth:
    return Truth(cast(Api, api), **options)


def status(api: FakeApi) -> Object:
    found: Object = api.scene.found["InferenceModel"][0]["status"]
    return found


def test_what_is_true_holds_at_once(api: FakeApi) -> None:
    truth_of(api).hold()
    assert api.looks == 1


def test_what_becomes_true_in_time_holds(api: FakeApi) -> None:
    status(api)["replicas"] = 7

    def mend(look: int) -> None:
        if look == 3:
            status(api)["replicas"] = 1

    api.before_look = mend
    truth_of(api).hold(within=30)
    assert api.looks == 3


def test_what_stays_false_is_reported_with_what_it_says_and_what_is_true(api: FakeApi) -> None:
    status(api)["replicas"] = 7
    with pytest.raises(AssertionError, match=r"team-a/tiny: replicas says 7; true is 1"):
        truth_of(api).hold(within=0.1)


def test_a_field_that_changes_from_one_falsehood_to_another_is_false_all_the_time(api: FakeApi) -> None:
    def change(look: int) -> None:
        status(api)["replicas"] = 7 + look

    api.before_look = change
    with pytest.raises(AssertionError, match="replicas"):
        truth_of(api).hold(within=0.1)


def test_a_version_that_is_forgotten_already_is_asked_for_anew(api: FakeApi) -> None:
    api.expired = {1, 2}
    assert truth_of(api).check() == []
    assert api.looks == 3


def test_models_of_other_namespaces_are_judged_on_demand_only(api: FakeApi) -> None:
    status(api)["replicas"] = 7
    api.namespace = "elsewhere"
    assert truth_of(api).check() == []
    assert len(truth_of(api, namespaces=[NAMESPACE, "elsewhere"]).check()) == 1


class Time:
    """A clock that stands still until it is told to go on."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def falsehood(field: str, says: str = "a") -> Falsehood:
    return Falsehood("team-a/tiny", field, says, "b")


def test_the_clock_knows_for_how_long_each_field_was_false() -> None:
    time = Time()
    clock = Clock(time)
    clock.see([falsehood("phase"), falsehood("url")])
    time.now += 1
    clock.see([falsehood("phase", "c")])
    time.now += 2
    assert [(lie.falsehood.field, lie.seconds) for lie in clock.open()] == [("phase", 3.0)]
    clock.see([])
    assert [(lie.falsehood.field, lie.seconds) for lie in clock.lies] == [("url", 1.0), ("phase", 3.0)]
    assert str(clock.lies[1]) == "for 3.00 s team-a/tiny: phase says a; true is b"


def test_what_cannot_be_seen_is_no_lie() -> None:
    time = Time()
    clock = Clock(time)
    clock.see([falsehood("phase")])
    clock.lose_sight()
    time.now += 60
    clock.see([falsehood("phase")])
    time.now += 1
    assert [lie.seconds for lie in clock.open()] == [1.0]
    assert clock.lies == []


@pytest.mark.parametrize(("load", "factor"), [(0.0, 1.0), (1.0, 1.0), (3.0, 1.5), (50.0, BUSIEST)])
def test_a_busy_machine_is_given_more_time_within_bounds(
    monkeypatch: pytest.MonkeyPatch, load: float, factor: float
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    assert busy_factor() == factor
