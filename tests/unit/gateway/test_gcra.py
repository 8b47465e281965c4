"""The bucket of the limits: never more than it holds and what has flown in, and never longer closed than it says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway.gcra import PERIOD, remaining, spent, wait

LIMITS = st.integers(1, 10**9)
STEPS = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.integers(1, 100).map(lambda share: share / 100)), max_size=60
)


@settings(deadline=None)
@given(limit=LIMITS, steps=STEPS, start=st.floats(0, 10**7))
def test_in_any_stretch_of_time_no_more_goes_than_a_bucket_and_what_has_flown_in(
    limit: int, steps: list[tuple[float, float]], start: float
) -> None:
    full_at, now = 0.0, start
    went: list[tuple[float, float]] = []
    for pause, share in steps:
        now += pause
        cost = max(1.0, share * limit)
        if wait(full_at, now, cost, limit) <= 0:
            full_at = spent(full_at, now, cost, limit)
            went.append((now, cost))

    for place, (begin, _) in enumerate(went):
        total = 0.0
        for at, cost in went[place:]:
            total += cost
            assert total <= limit * (1 + (at - begin) / PERIOD) * (1 + 1e-6) + 1e-3


@settings(deadline=None)
@given(limit=LIMITS, steps=STEPS)
def test_after_the_time_that_it_says_it_lets_in_and_not_before(limit: int, steps: list[tuple[float, float]]) -> None:
    full_at, now = 0.0, 100.0
    for pause, share in steps:
        now += pause
        cost = max(1.0, share * limit)
        seconds = wait(full_at, now, cost, limit)
        if seconds > 0:
            assert wait(full_at, now + seconds * 0.99 - 1e-6, cost, limit) > 0
            now += seconds + 1e-6
            assert wait(full_at, now, cost, limit) <= 0
        full_at = spent(full_at, now, cost, limit)


@settings(deadline=None)
@given(limit=st.integers(1, 1000))
def test_the_whole_limit_may_go_at_once_and_not_one_more(limit: int) -> None:
    full_at, now = 0.0, 5000.0
    for left in range(limit, 0, -1):
        assert remaining(full_at - now, limit) == left
        assert wait(full_at, now, 1, limit) <= 0
        full_at = spent(full_at, now, 1, limit)
    assert remaining(full_at - now, limit) == 0
    assert wait(full_at, now, 1, limit) > 0
    assert remaining(full_at - now - PERIOD, limit) == limit
