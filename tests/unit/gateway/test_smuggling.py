"""Where a request ends and what it asks for: as h11 and nginx read it, or refused.

Each odd request of `odd_requests` comes with a plain one behind it. What the gateway takes for requests, the others
take for the same ones; and what a pod gets is what h11 reads in what the gateway wrote.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from moorage_common.http.message import Limits
from tests.unit.common.support import Reply
from tests.unit.gateway.odd_requests import AUTH, STREAMS
from tests.unit.gateway.strict_servers import Seen, by_h11, by_nginx
from tests.unit.gateway.support import Bed, answers, faults, running

IMPATIENT = Limits(head_seconds=0.15, body_idle_seconds=0.15, keep_alive_seconds=0.15)
"""It still lingers: a pause of this process between two packets must not take a refusal away."""

REFUSALS = {400, 405, 408, 413, 415, 417, 431, 505}
NGINX = by_nginx()

STRICTER_NGINX = {
    "length-tab-before": "RFC 9112 5 allows tabs around a value",
    "chunked-tab-before": "RFC 9112 5 allows tabs around a value",
    "two-credentials": "they are no credential for the gateway: 401, whatever they are",
    "target-nul-encoded": "the gateway decodes nothing: it is no route of its own, 404",
    "target-percent": "the gateway decodes nothing: it is no route of its own, 404",
    "target-percent-odd": "the gateway decodes nothing: it is no route of its own, 404",
    "rtsp": "llhttp takes it for HTTP/1.0; one request, and the connection is closed",
}
STRICTER_H11 = {
    "blank-lines-before": "RFC 9112 2.2: a server should ignore an empty line before a request",
    "newlines-before": "RFC 9112 2.2: a server should ignore an empty line before a request",
    "two-blanks": "RFC 9112 3 allows words between any whitespace; nginx takes it, too",
    "1.0-kept": "h11 keeps no connection of HTTP/1.0",
    "rtsp": "llhttp takes it for HTTP/1.0; one request, and the connection is closed",
}
"""Streams of which the other one takes less than the gateway, and why that is no harm."""


async def answered(bed: Bed, content: bytes, cuts: Sequence[int] = ()) -> list[Reply]:
    """All answers to a stream that comes in these pieces, until the gateway closes the connection."""
    replies = []
    async with bed.gateway.client() as client:
        with suppress(ConnectionError, RuntimeError):  # closed by the gateway before all was sent
            for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                await client.send(content[begin:end])
                if cuts:
                    await asyncio.sleep(0.005)  # a packet of its own
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                reply = await client.reply()
                if reply.status >= 200:
                    replies.append(reply)
    return replies


def same(taken: list[Seen], others: list[Seen], stricter: str | None) -> None:
    """What the gateway has taken is what others take, as far as it has taken anything."""
    if stricter is None:
        assert taken == others[: len(taken)]
    else:
        assert others == taken[: len(others)]
        assert len(others) < len(taken), "the other one takes as much: no exception is needed"


def body_apart(content: bytes) -> list[int]:
    """Cut behind the first head, in its body, and in the middle of the request behind it."""
    begin = content.find(b"\r\n\r\n") + 4
    return sorted({begin, min(begin + 3, len(content) - 1), max(len(content) - 40, begin)} - {3, len(content)})


@pytest.mark.parametrize("apart", [False, True], ids=["at-once", "apart"])
@pytest.mark.parametrize("name", STREAMS)
async def test_bad_input_44_a_stream_is_the_same_requests_for_everybody_or_refused(name: str, apart: bool) -> None:
    content = STREAMS[name]
    async with running(answers(), limits=IMPATIENT) as (bed, [pod]):
        replies = await answered(bed, content, body_apart(content) if apart else ())
        taken = [
            Seen(one.method, one.path + (f"?{one.query.decode('latin-1')}" if one.query else ""), one.body)
            for one in bed.taken
        ]
        sent = [by_h11(request) for request in pod.requests]

    same(taken, by_h11(content), STRICTER_H11.get(name))
    same(taken, NGINX[name], STRICTER_NGINX.get(name))
    # A pod gets each request once, whole and well framed, and nothing that was hidden in another one.
    assert all(len(requests) == 1 for requests in sent)
    relayed = [request for (request,) in sent]
    plain = [one._replace(target=one.target.partition("?")[0]) for one in taken]
    assert [one for one in plain if one in relayed] == relayed
    assert not any("hidden" in one.target for one in (*taken, *relayed))
    # What was not taken was refused, in words.
    assert [reply.status for reply in replies[len(taken) :]] in ([], *([status] for status in REFUSALS))
    if not taken:
        assert replies[-1].headers["connection"] == "close"


def test_nginx_was_asked_about_every_stream() -> None:
    assert list(NGINX) == list(STREAMS), "ask it again: python -m tests.nginx.ask"


@pytest.mark.parametrize("credential", [AUTH, b"X: y"], ids=["relayed", "refused-at-once"])
@pytest.mark.parametrize("name", ["connection-close", "1.0", "length-1.0"])
@pytest.mark.parametrize("apart", [False, True], ids=["at-once", "body-apart"])
async def test_bad_input_44_nothing_behind_a_request_that_is_the_last_is_taken(
    name: str, apart: bool, credential: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    content = STREAMS[name].replace(AUTH, credential, 1)
    async with running(answers(), limits=IMPATIENT) as (bed, [pod]):
        # The rest of the body and what comes behind it are in one packet.
        replies = await answered(bed, content, [content.index(b"\r\n\r\n") + 4] if apart else ())
        assert (len(replies), len(bed.taken)) == (1, 1)
        assert len(pod.requests) <= 1
    assert not faults(caplog)
