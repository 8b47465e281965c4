"""How many replicas a model gets by its use: up at once, down late, to none after an idle time; never by ignorance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.scaling.decision import Decision, Past, Rules, Use, begin, decide, rules
from tests.unit.operator.support import model, thorough

RULES = Rules(least=0, most=3, target=4, idle=60.0, delay=20.0)
AWAKE = Past(1, 1, since=0.0)
ASLEEP = Past(0, 0, since=0.0)


def used(requests: int = 0, last: float = 0.0, *, known: bool = True, served: bool = True) -> Use:
    return Use(requests, last, known, served)


def test_a_model_without_use_sleeps_after_its_idle_time_and_not_before() -> None:
    soon = decide(RULES, used(last=100.0), AWAKE, 159.0)
    assert soon.replicas == 1
    assert soon.again == pytest.approx(1.0)
    assert decide(RULES, used(last=100.0), AWAKE, 160.0).replicas == 0


def test_requests_that_run_or_wait_keep_it_awake_however_old_they_are() -> None:
    assert decide(RULES, used(1, last=0.0), AWAKE, 1e6) == Decision(AWAKE)


@pytest.mark.parametrize("use", [used(known=False), used(served=False), used(known=False, served=False)])
def test_what_is_not_known_puts_nothing_to_sleep_nor_does_it_where_no_gateway_serves_it(use: Use) -> None:
    assert decide(RULES, use, AWAKE, 1e6).replicas == 1


def test_what_waits_wakes_it_even_if_a_gateway_is_not_reached() -> None:
    woken = decide(RULES, used(1, known=False), ASLEEP, 500.0)
    assert woken.replicas == 1
    # The request may have gone in the meantime: the idle time begins with the waking.
    assert decide(RULES, used(last=0.0), woken.past, 559.0).replicas == 1
    assert decide(RULES, used(last=0.0), woken.past, 560.0).replicas == 0


def test_it_sleeps_on_without_requests_whatever_else_comes() -> None:
    for use in (used(last=499.0), used(known=False), used(served=False)):
        assert decide(RULES, use, ASLEEP, 500.0) == Decision(ASLEEP)


def test_it_wakes_to_as_many_as_wait() -> None:
    assert decide(RULES, used(9), ASLEEP, 0.0).replicas == 3


@pytest.mark.parametrize(("requests", "replicas"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (1000, 3)])
def test_replicas_follow_the_target_up_to_the_most(requests: int, replicas: int) -> None:
    assert decide(RULES, used(requests), AWAKE, 10.0).replicas == replicas


def test_fewer_come_after_the_delay_and_step_by_step() -> None:
    three = decide(RULES, used(12), AWAKE, 100.0)
    two = decide(RULES, used(8), three.past, 110.0)
    assert two.replicas == 3
    assert two.again == pytest.approx(20.0)
    one = decide(RULES, used(1), two.past, 115.0)
    assert one.replicas == 3
    assert one.again == pytest.approx(15.0)
    assert decide(RULES, used(1), one.past, 129.9).replicas == 3
    later = decide(RULES, used(1), one.past, 130.0)
    assert later.replicas == 2
    assert later.again == pytest.approx(5.0)
    assert decide(RULES, used(1), later.past, 135.0) == Decision(Past(1, 1, 0.0))


def test_a_peak_in_between_begins_the_delay_anew() -> None:
    three = decide(RULES, used(12), AWAKE, 100.0)
    low = decide(RULES, used(1), three.past, 110.0)
    peak = decide(RULES, used(12), low.past, 125.0)
    low = decide(RULES, used(1), peak.past, 126.0)
    assert decide(RULES, used(1), low.past, 145.0).replicas == 3
    assert decide(RULES, used(1), low.past, 146.0).replicas == 1


def test_without_all_gateways_none_are_taken_away_and_the_delay_begins_when_they_are_back() -> None:
    three = decide(RULES, used(12), AWAKE, 100.0)
    dark = decide(RULES, used(1, known=False), three.past, 1000.0)
    assert dark.replicas == 3
    back = decide(RULES, used(1), dark.past, 2000.0)
    assert back.replicas == 3
    assert back.again == pytest.approx(20.0)
    assert decide(RULES, used(1), back.past, 2020.0).replicas == 1


def test_a_limit_that_was_lowered_holds_at_once_even_in_the_dark() -> None:
    three = decide(RULES, used(12), AWAKE, 100.0)
    for use in (used(12), used(12, known=False)):
        assert decide(RULES._replace(most=2), use, three.past, 101.0).replicas == 2


def test_with_a_least_number_it_never_sleeps_and_one_that_sleeps_wakes() -> None:
    always = RULES._replace(least=2)
    assert decide(always, used(), AWAKE, 1e6).replicas == 2
    assert decide(always, used(), ASLEEP, 1e6).replicas == 2


@pytest.mark.parametrize(
    ("found", "replicas"),
    [(None, 1), (0, 0), (1, 1), (3, 3), (50, 3)],
    ids=["new", "asleep", "one", "three", "by a stranger"],
)
def test_after_a_restart_it_goes_on_from_what_there_is(found: int | None, replicas: int) -> None:
    past = begin(RULES, found, 100.0)
    assert decide(RULES, used(known=False, last=100.0), past, 100.0).replicas == replicas


def test_the_spec_says_the_rules_and_a_stopped_model_has_none() -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 5, "idleTimeout": "1h30m", "scaleDownDelay": "90s"}
    assert rules(model(scaling=scaling).spec) == Rules(0, 5, 4, 5400.0, 90.0)
    assert rules(model(scaling=scaling, maxConcurrency=7).spec) == Rules(0, 5, 7, 5400.0, 90.0)
    assert rules(model(scaling={**scaling, "targetConcurrency": 32}).spec) == Rules(0, 5, 32, 5400.0, 90.0)
    assert rules(model(scaling=scaling, suspend=True).spec) is None
    assert rules(model(replicas=3).spec) is None


_STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 200.0),
        st.integers(0, 20),
        st.booleans(),
        st.booleans(),
    ),
    max_size=20,
)


@thorough
@given(least=st.integers(0, 3), most=st.integers(3, 5), steps=_STEPS)
def test_whatever_comes_it_stays_within_its_bounds_and_is_enough(
    least: int, most: int, steps: list[tuple[float, int, bool, bool]]
) -> None:
    bounds = RULES._replace(least=least, most=most)
    past, now, last = begin(bounds, None, 0.0), 0.0, 0.0
    for wait, requests, known, served in steps:
        now += wait
        last = now if requests else last
        before = past.replicas
        decision = decide(bounds, Use(requests, last, known, served), past, now)
        past = decision.past
        assert least <= past.replicas <= most
        assert past.replicas >= min(most, -(-requests // bounds.target))
        assert known or past.replicas >= before, "a replica was taken away in the dark"
        if past.replicas == 0 and before:
            assert known and served and not requests and now - last >= bounds.idle
        assert decision.again is None or decision.again > 0
