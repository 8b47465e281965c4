"""Requests that begin alike go to one pod, no pod has more than its bound, and few prefixes move when pods do."""

import json
import random
import tracemalloc
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_gateway.balance import FAILURES, Backends, Endpoint
from moorage_gateway.hold import State
from moorage_gateway.keys import ApiKey
from moorage_gateway.prefix import ByPrefix, PrefixPods, PrefixSettings, hash_of, prefix_of
from tests.unit.common.support import post
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, answers, running

SYSTEM = {"role": "system", "content": "You are kind. " * 100}
quick = settings(deadline=None, max_examples=60)
addresses = st.sets(st.integers(1, 250).map(lambda number: (f"10.0.0.{number}", 8000)), min_size=1, max_size=12)
places = st.integers(0, 2**64 - 1)


def pods(at: set[tuple[str, int]] | int, percent: int = 125) -> tuple[Backends, PrefixPods]:
    """Pods at these addresses, or so many."""
    backends = Backends()
    backends.update({(f"10.0.0.{number}", 8000) for number in range(at)} if isinstance(at, int) else at)
    return backends, PrefixPods(backends, PrefixSettings(load_factor_percent=percent))


def chat(number: int, turns: int = 1) -> bytes:
    """The body of a chat, with the same system message as all the others."""
    messages: list[dict[str, Any]] = [SYSTEM, {"role": "user", "content": f"I am customer {number}."}]
    for turn in range(1, turns):
        messages += [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": f"And then {turn}?"}]
    return json.dumps({"model": "chat", "messages": messages}).encode()


def picked(from_: PrefixPods, place: int, *tried: Endpoint, now: float = 0.0) -> Endpoint:
    found = from_.pick(place, now, tried)
    assert found is not None
    return found


# -- what the prefix is -----------------------------------------------------------------------------------------------


def test_all_turns_of_a_chat_have_one_prefix_and_other_chats_another_whatever_they_share() -> None:
    of_first = prefix_of(chat(1), 256)
    assert of_first is not None
    assert prefix_of(chat(1, turns=20), 256) == of_first
    assert prefix_of(chat(2), 256) != of_first
    assert len(of_first) <= 2 * 256 + 1


@pytest.mark.parametrize(
    ("body", "prefix"),
    [
        ({"prompt": "Once upon a time"}, b"Once upon"),
        ({"prompt": ["Once upon a time", "x"]}, b'"Once upo'),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, b'{"type": '),
        ({"messages": [{"content": "Once upon a time", "role": "user"}, {"role": "user"}]}, b"Once upon"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, b'Hi"'),
        ({"messages": []}, None),
        ({"input": ["a"]}, None),
        ({"messages": "x", "prompt": "y"}, None),
        ({"messages": [{"role": 1}]}, None),
    ],
)
def test_what_the_prefix_of_a_body_is(body: dict[str, Any], prefix: bytes | None) -> None:
    assert prefix_of(json.dumps(body).encode(), 9) == prefix


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"\xff", b'{"messages":' + b"[" * 100_000])
def test_bad_input_47_a_body_that_cannot_be_read_has_no_prefix(body: bytes) -> None:
    assert prefix_of(body, 256) is None


def test_the_ring_is_the_same_in_every_process() -> None:
    # Were this Python's own hash, which differs from process to process, two gateways would not agree.
    assert hash_of(b"Once upon a time") == 0xA42A51929FF4B6E4


# -- which pod it chooses ---------------------------------------------------------------------------------------------


@quick
@given(at=addresses, percent=st.integers(100, 300), seed=st.integers(0, 2**32))
async def test_no_pod_gets_more_than_its_bound_however_skewed_the_prefixes_are(
    at: set[tuple[str, int]], percent: int, seed: int
) -> None:
    _, by_prefix = pods(at, percent)
    chance, active = random.Random(seed), list[Endpoint]()  # noqa: S311 - not for secrets
    for _ in range(300):
        if active and chance.random() < 0.45:
            active.pop(chance.randrange(len(active))).in_flight -= 1
            continue
        endpoint = picked(by_prefix, hash_of(b"%d" % int(chance.paretovariate(0.7))))
        endpoint.in_flight += 1
        active.append(endpoint)
        # With this request in the average; a whole request more than the bound is none.
        assert endpoint.in_flight < percent / 100 * len(active) / len(at) + 1


@quick
@given(at=addresses, place=places, failing=st.sets(st.integers(0, 11)))
async def test_a_pod_is_found_as_long_as_one_is_not_passed_over(
    at: set[tuple[str, int]], place: int, failing: set[int]
) -> None:
    backends, by_prefix = pods(at, 100)
    bad = [endpoint for number, endpoint in enumerate(backends) if number in failing]
    for endpoint in bad:
        endpoint.open_until = 1.0
    found = by_prefix.pick(place, 0.5, ())
    assert (found is None) == (len(bad) == len(backends))
    assert found not in bad
    tried: tuple[Endpoint, ...] = ()
    while (found := by_prefix.pick(place, 0.5, tried)) is not None:
        assert found not in tried
        tried = (*tried, found)
    assert len(tried) == len(backends) - len(bad)


@quick
@given(at=addresses, comes=st.integers(1, 250), keys=st.lists(places, min_size=1, max_size=200))
async def test_only_prefixes_that_a_new_pod_gets_move_and_come_back_when_it_goes(
    at: set[tuple[str, int]], comes: int, keys: list[int]
) -> None:
    new = (f"10.0.1.{comes}", 8000)
    backends, by_prefix = pods(at)
    before = [picked(by_prefix, key) for key in keys]
    backends.update({*at, new})
    grown = [picked(by_prefix, key) for key in keys]
    assert {one.pool.host for one, other in zip(grown, before, strict=True) if one is not other} <= {new[0]}
    backends.update(at)
    assert [picked(by_prefix, key) for key in keys] == before


async def test_a_new_pod_takes_its_share_of_the_prefixes_and_no_more() -> None:
    backends, by_prefix = pods(8)
    keys = [hash_of(b"%d" % number) for number in range(4000)]
    before = Counter(picked(by_prefix, key).pool.host for key in keys)
    # 128 points a pod: parts of the ring differ by some 9 %.
    assert max(before.values()) / 500 < 1.35
    assert min(before.values()) / 500 > 0.65
    backends.update({(f"10.0.0.{number}", 8000) for number in range(9)})
    moved = sum(picked(by_prefix, key).pool.host == "10.0.0.8" for key in keys)
    assert 0.65 < moved / (4000 / 9) < 1.35


async def test_a_pod_that_fails_is_passed_over_and_probed_by_a_request_of_its_own_prefix() -> None:
    _, by_prefix = pods(4)
    place = hash_of(b"x")
    owner = picked(by_prefix, place)
    for _ in range(FAILURES):
        owner.failed(0.0)
    assert picked(by_prefix, place, now=0.5) is not owner
    assert picked(by_prefix, place, now=1.5) is owner
    # One probe at a time.
    assert picked(by_prefix, place, now=1.6) is not owner
    owner.succeeded()
    assert picked(by_prefix, place, now=1.7) is owner


@pytest.mark.parametrize(
    ("percent", "skewed", "least", "most"),
    [
        *((125, False, 0.78, 1), (125, True, 0.66, 1), (200, False, 0.98, 1), (200, True, 0.9, 1)),
        # Without prefixes, by the fewest in flight.
        *((None, False, 0, 0.3), (None, True, 0, 0.3)),
    ],
)
async def test_the_share_of_requests_that_meet_the_pod_of_their_prefix(
    percent: int | None, skewed: bool, least: float, most: float
) -> None:
    # 8 pods, 64 requests in flight, 800 chats; skewed, the first chat has an eighth of all requests (Zipf).
    backends, by_prefix = pods(8, percent or 100)
    chance, active = random.Random(7), list[Endpoint]()  # noqa: S311 - not for secrets
    met: defaultdict[int, Counter[str]] = defaultdict(Counter)
    chats = [hash_of(prefix_of(chat(number), 256) or b"") for number in range(800)]
    order = chance.choices(range(800), [1 / (1 + number) if skewed else 1 for number in range(800)], k=20_000)
    for number in order:
        if len(active) == 64:
            active.pop(chance.randrange(64)).in_flight -= 1
        endpoint = picked(by_prefix, chats[number]) if percent else backends.pick(0.0)
        assert endpoint is not None
        endpoint.in_flight += 1
        active.append(endpoint)
        met[number][endpoint.pool.host] += 1
    share = sum(counted.most_common(1)[0][1] for counted in met.values()) / len(order)
    how = f"factor {percent} %" if percent else "fewest in flight"
    print(f"{how}, {'Zipf' if skewed else 'even'}: {share:.1%} of requests on the pod that their chat met most")
    assert least < share <= most


# -- through the gateway ----------------------------------------------------------------------------------------------


async def test_the_turns_of_a_chat_meet_one_pod_and_what_has_no_prefix_the_least_busy() -> None:
    async with running(answers(), answers(), answers()) as (bed, servers):
        bed.keys.put("uid", ApiKey(id="tester", digest=DIGEST, everything=True))
        bed.table.put(MODEL, "chat", prefix=PrefixSettings())
        auth = f"Authorization: Bearer {KEY}"
        for number in range(12):
            before = [len(pod.requests) for pod in servers]
            for turn in range(5):
                assert (await bed.gateway.ask(post(chat(number, turn + 1), auth, path=CHAT))).status == 200
            after = [len(pod.requests) for pod in servers]
            assert sorted(later - sooner for later, sooner in zip(after, before, strict=True)) == [0, 0, 5]
        assert len([pod for pod in servers if pod.requests]) > 1

        before = [len(pod.requests) for pod in servers]
        for _ in range(6):
            body = b'{"model":"chat","input":"a"}'
            assert (await bed.gateway.ask(post(body, auth, path="/v1/embeddings"))).status == 200
        assert [len(pod.requests) - old for pod, old in zip(servers, before, strict=True)] == [2, 2, 2]


async def test_a_pod_that_cannot_be_reached_is_passed_over_for_the_next_on_the_ring() -> None:
    async with running(answers(), answers()) as (bed, servers):
        bed.table.put(MODEL, "chat", prefix=PrefixSettings())
        gone = ("127.0.0.1", 1)
        bed.table.backends(MODEL).update([gone, *(("127.0.0.1", pod.port) for pod in servers)])
        for number in range(80):  # so many that three of them begin at that pod, wherever the ports lie on the ring
            reply = await bed.gateway.ask(post(chat(number), f"Authorization: Bearer {KEY}", path=CHAT))
            assert reply.status == 200
        bad = next(endpoint for endpoint in bed.table.backends(MODEL) if endpoint.pool.port == 1)
        assert bad.open_until > 0
        assert bad.in_flight == 0


async def test_a_model_that_changes_otherwise_keeps_its_ring() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(MODEL, "chat", prefix=PrefixSettings(64))
        first = bed.table.named("chat")[0].prefixes
        assert first is not None
        assert isinstance(first.choosing(chat(1)), ByPrefix)
        bed.table.put(MODEL, "chat", prefix=PrefixSettings(64), state=State(why_not="x"))
        assert bed.table.named("chat")[0].prefixes is first
        bed.table.put(MODEL, "chat", prefix=PrefixSettings(65))
        assert bed.table.named("chat")[0].prefixes is not first
        bed.table.put(MODEL, "chat")
        assert bed.table.named("chat")[0].prefixes is None


@pytest.mark.parametrize("message", [b"{}", b'{"role":"x"}'])
def test_bad_input_60_a_chat_of_a_million_messages_takes_the_time_of_nobody(message: bytes) -> None:
    body = b'{"messages":[%b]}' % b",".join([message] * 200_000)
    tracemalloc.start()
    try:
        assert prefix_of(body, 256) is None
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
