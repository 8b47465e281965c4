"""What all gateways say together: sums, the last use, and what is not known while one of them is away."""

from moorage_common.demand import News, Use
from moorage_operator.api.key import Key
from moorage_operator.scaling.usage import Usage
from tests.unit.operator.support import Clock

A, B = ("10.0.0.1", 9090), ("10.0.0.2", 9090)
TINY, OTHER = Key("team-a", "tiny"), Key("team-a", "other")


def news(gateway: str = "", **models: Use | None) -> News:
    return News(gateway, {f"team-a/{name}": use for name, use in models.items()})


def heard(clock: Clock, **addresses: Use) -> Usage:
    """A usage in which gateways have told of the model `tiny`."""
    usage = Usage(clock)
    usage.set_addresses([A, B][: len(addresses)])
    for address, (name, use) in zip((A, B), addresses.items(), strict=False):
        usage.update(address, news(name, tiny=use))
    return usage


def test_requests_are_added_up_over_all_gateways() -> None:
    usage = heard(Clock(), one=Use(2, 1), two=Use(3))
    assert usage.use(TINY)[:1] == (6,)
    assert usage.update(A, news(tiny=Use(1))) == {TINY}
    assert usage.use(TINY).requests == 4


def test_the_last_use_is_the_latest_of_all() -> None:
    usage = heard(Clock(1000.0), one=Use(idle=50.0), two=Use(idle=20.0))
    assert usage.use(TINY).last == 980.0


def test_a_use_that_nobody_knows_of_counts_as_now() -> None:
    clock = Clock(1000.0)
    usage = heard(clock, one=Use())
    clock.advance(100)
    assert usage.use(TINY).last == 1000.0


def test_who_serves_a_model_and_who_would_wake_it() -> None:
    clock = Clock()
    usage = Usage(clock)
    assert not usage.wakes(TINY)
    assert usage.set_addresses([A]) == set()
    assert usage.wakes(TINY), "a gateway that was not heard yet is believed to"
    assert not usage.use(TINY).served
    usage.update(A, news("one", other=Use()))
    assert not usage.wakes(TINY)
    usage.update(A, news(tiny=Use()))
    assert usage.wakes(TINY)
    assert usage.use(TINY).served
    assert usage.update(A, news(tiny=None)) == {TINY}
    assert not usage.use(TINY).served


def test_one_gateway_that_is_away_makes_everything_unknown_until_it_is_back() -> None:
    usage = heard(Clock(), one=Use(), two=Use(1))
    assert usage.use(TINY).known
    assert usage.lost(B) == {TINY}
    assert usage.use(TINY)[0:1] == (0,)
    assert not usage.use(OTHER).known
    usage.update(B, news("two", tiny=Use(idle=1.0)))
    assert usage.use(TINY).known


def test_a_gateway_that_comes_back_tells_itself_what_it_did() -> None:
    clock = Clock(1000.0)
    usage = heard(clock, one=Use(idle=500.0))
    usage.lost(A)
    clock.advance(10)
    usage.update(A, news("one", tiny=Use(idle=510.0)))
    assert usage.use(TINY).last == 500.0


def test_what_a_gateway_did_that_never_came_back_counts_as_use() -> None:
    for replaced in (True, False):
        clock = Clock(1000.0)
        usage = heard(clock, one=Use(idle=500.0), two=Use(idle=500.0))
        usage.lost(A)
        clock.advance(10)
        if replaced:
            usage.update(A, news("another", tiny=Use()))
        else:
            assert usage.set_addresses([B]) == {TINY}
        assert usage.use(TINY).last == 1010.0
        assert usage.use(TINY).known


def test_a_gateway_that_ends_in_order_leaves_nothing_unknown() -> None:
    clock = Clock(1000.0)
    usage = heard(clock, one=Use(idle=500.0), two=Use(idle=500.0))
    usage.update(A, News(end=True))
    usage.lost(A)
    assert usage.use(TINY).known
    clock.advance(10)
    usage.set_addresses([B])
    assert usage.use(TINY).last == 500.0


def test_names_that_are_none_and_gateways_that_are_not_there_do_no_harm() -> None:
    usage = Usage(Clock())
    assert usage.update(A, news("one", tiny=Use())) == set()
    assert usage.lost(A) == set()
    usage.set_addresses([A])
    usage.update(A, News("one", {"": Use(1), "a/b/c": Use(1)}))
    assert not usage.use(TINY).served


def test_one_that_refuses_to_tell_wakes_nobody_and_leaves_everything_unknown() -> None:
    usage = Usage(Clock())
    usage.set_addresses([A, B])
    assert usage.refused(A)
    assert not usage.refused(A), "that is no news"
    assert usage.wakes(TINY), "the other may"
    assert usage.refused(B)
    assert not usage.wakes(TINY)
    assert not usage.use(TINY).known
    usage.update(A, news("one", tiny=Use()))
    assert usage.wakes(TINY)
    usage.lost(A)
    assert usage.wakes(TINY), "it is only away"
    assert not usage.refused(("10.0.0.9", 9090))
