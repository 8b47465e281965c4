"""IDs of requests and the trace context: valid ones are passed on, others never reach a pod or a log."""

import re

import pytest

from moorage_gateway.desk import Desk
from moorage_gateway.trace import Traces, trace_id, valid_parent
from tests.unit.common.support import get, post
from tests.unit.gateway.support import CHAT, KEY, answers, running

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AUTH = f"Authorization: Bearer {KEY}"


@pytest.mark.parametrize(
    ("parent", "valid"),
    [
        (PARENT, True),
        ("cc" + PARENT[2:] + "-what-the-future-will-be", True),
        (PARENT + "-more", False),
        ("ff" + PARENT[2:], False),
        (PARENT.upper(), False),
        (PARENT[:-1], False),
        (PARENT.replace("b7ad6b7169203331", "0" * 16), False),
        ("", False),
    ],
)
def test_what_a_traceparent_is(parent: str, valid: bool) -> None:
    assert valid_parent(parent.encode()) is valid


async def test_a_trace_is_passed_on_and_an_invalid_one_is_dropped_with_its_state() -> None:
    async with running(answers()) as (bed, [pod]):
        for headers in ([f"traceparent: {PARENT}", "tracestate: a=b"], ["traceparent: 00-1-2-01", "tracestate: a=b"]):
            await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, *headers, path=CHAT))
        await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, "tracestate: a=b", path=CHAT))

        first, second, third = (request.lower() for request in pod.requests)
        assert f"traceparent: {PARENT}\r\ntracestate: a=b\r\n".encode() in first
        assert b"trace" not in second + third


async def test_a_trace_is_made_where_that_is_wanted() -> None:
    async with running(answers(), desk=Desk(lambda: 0.0, traces=Traces(make=True))) as (bed, [pod]):
        for _ in range(2):
            await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, path=CHAT))
        made = [re.search(rb"traceparent: ([0-9a-f-]+)\r\n", request) for request in pod.requests]
        parents = {found[1] for found in made if found}
        assert len(parents) == 2
        assert all(valid_parent(parent) for parent in parents)
        assert all(len(trace_id({b"traceparent": parent})) == 32 for parent in parents)


async def test_every_answer_has_the_requests_id_and_the_pod_knows_it() -> None:
    async with running(answers()) as (bed, [pod]):
        ours = await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, path=CHAT))
        theirs = await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, "x-request-id: Abc-1", path=CHAT))
        nobodys = await bed.gateway.ask(get("/v1/models", "x-request-id: Abc-2"))

        assert theirs.headers["x-request-id"] == "abc-1"  # the test's client lowers heads
        assert nobodys.headers["x-request-id"] == "abc-2"
        assert f"x-request-id: {ours.headers['x-request-id']}\r\n".encode() in pod.requests[0]
        assert b"x-request-id: Abc-1\r\n" in pod.requests[1]


@pytest.mark.parametrize("identity", ["", "a b", "a" * 129, '"><script>', "\u00e4"])
async def test_bad_input_58_an_id_that_is_none_is_replaced(identity: str) -> None:
    async with running(answers()) as (bed, [pod]):
        reply = await bed.gateway.ask(post(b'{"model":"chat"}', AUTH, f"x-request-id: {identity}", path=CHAT))
        assert reply.headers["x-request-id"] != identity
        assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", reply.headers["x-request-id"])
        assert pod.requests[0].lower().count(b"x-request-id") == 1
