"""What somebody tries who has read docs/gateway.md: other credentials, other names, other routes, words in our logs."""

import asyncio
import json
import logging
from typing import Any

import pytest

from moorage_common.http.message import Limits
from moorage_gateway.access import User
from moorage_gateway.keys import ApiKey
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import Reply, post
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, OK, SECRET, Bed, answers, running

OTHER = ModelKey("team-b", "secret")
BODY = b'{"model":"chat","messages":[]}'


async def ask(bed: Bed, *headers: str | bytes, body: bytes = BODY, path: str = CHAT) -> Reply:
    """A chat with these headers only; bytes are sent as they are."""
    lines = [header if isinstance(header, bytes) else header.encode() for header in headers]
    head, _, _ = post(body, path=path).partition(b"\r\n\r\n")
    return await bed.gateway.ask(b"\r\n".join([head, *lines, b"", body]))


def named(model: Any) -> bytes:
    return json.dumps({"model": model, "messages": []}).encode()


WRONG = [
    *(f"Authorization: Bearer{KEY}", f"Authorization: Bearer\t{KEY}", f"Authorization: Bearer {KEY},"),
    *(
        f"Authorization: Bearer {KEY} {KEY}",
        f"Authorization: Bearer {KEY}, Bearer {KEY}",
        f"Authorization: Token {KEY}",
    ),
    *(f'Authorization: Bearer "{KEY}"', f"Authorization: Bearer {KEY}%00", f"Authorization: Bearer {KEY.upper()}"),
    *("Authorization: Bearer mrg_", "Authorization: Bearer mrg__", f"Authorization: Bearer mrg__{SECRET}"),
    *("Authorization: Bearer mrg_tester", "Authorization: Bearer mrg_tester_", f"Authorization: Bearer mrg_*_{SECRET}"),
    *(f"Authorization: Bearer mrg_TESTER_{SECRET}", f"Authorization: Bearer mrg_../tester_{SECRET}"),
    *(f"Authorization: Bearer mrg_mrg_tester_{SECRET}", f"Authorization: Bearer mrg_tester__{SECRET}"),
    *(f"Authorization: Bearer mrg_tester_{DIGEST.hex()}", f"Authorization: Bearer mrg_{'x' * 9000}"),
    *(
        f"X-Api-Key: {KEY}",
        f"Api-Key: {KEY}",
        f"Proxy-Authorization: Bearer {KEY}",
        f"Cookie: authorization=Bearer {KEY}",
    ),
    *(f"Authorization-: Bearer {KEY}", f"X-Forwarded-Authorization: Bearer {KEY}", f"Authorization: Basic {KEY}"),
    *(b"Authorization: Bearer mrg_tester_\xff", b"Authorization: Bearer mrg_t\xe9ster_s3cret", "X-Remote-User: admin"),
]


@pytest.mark.parametrize("header", WRONG, ids=lambda header: repr(header)[:60])
async def test_bad_input_41_what_only_looks_like_a_key_is_none(header: str | bytes) -> None:
    async with running(answers()) as (bed, [pod]):
        nobody, reply = await ask(bed), await ask(bed, header)
        for one in (nobody, reply):
            del one.headers["x-request-id"]

        assert (reply.status, reply.body, reply.headers) == (401, nobody.body, nobody.headers)
        assert not pod.requests
        # What says that it is a key is never shown to the API server.
        assert not [asked for asked in bed.reviews.asked if "mrg_" in asked.removeprefix("who ")[:4]]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
async def test_the_scheme_may_be_written_in_any_letters(scheme: str) -> None:
    async with running(answers()) as (bed, _):
        assert (await ask(bed, f"Authorization: {scheme}{KEY}")).status == 200


@pytest.mark.parametrize("path", [f"{CHAT}?key={KEY}", f"{CHAT}?access_token={KEY}", f"/{KEY}{CHAT}"])
async def test_bad_input_41_a_key_in_the_address_is_none(path: str) -> None:
    async with running(answers()) as (bed, _):
        assert (await ask(bed, path=path)).status == 401


async def test_bad_input_41_a_token_as_long_as_a_head_may_be_asks_nobody() -> None:
    async with running(answers()) as (bed, _):
        assert (await ask(bed, f"Authorization: Bearer {'e' * 9000}")).status == 401
        assert bed.reviews.asked == []


NAMES = [
    *("secret", "team-b/secret", "team-b%2fsecret", "team-b/secret/", "/team-b/secret", " secret", "secret ", "SECRET"),
    *("*/*", "*", "team-b/*", "team-a/*", "team-a/../team-b/secret", "../team-b/secret", "team-a/chat/../secret"),
    *(
        "team-a//chat",
        "Chat",
        "ch\u0430t",
        "\uff43hat",
        "chat\u200b",
        "chat\n",
        "chat\0",
        "c\u0301hat",
        "",
        "/",
        "a" * 5000,
    ),
    *("chat,secret", "chat secret", "chat;secret", "chat#secret", "chat?x", "team-a/chat:latest", "{chat}", "\udcff"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_bad_input_42_no_spelling_of_a_name_reaches_the_model_of_others(name: str) -> None:
    async with running(answers()) as (bed, [pod]):
        bed.table.put(OTHER, "secret")
        bed.table.move(OTHER, [("127.0.0.1", pod.port)])
        reply = await ask(bed, f"Authorization: Bearer {KEY}", body=named(name))

        assert reply.status in {404, 400}
        assert reply.error["code"] == ("model_not_found" if reply.status == 404 else None)
        assert len(reply.body) < 2000
        assert not pod.requests


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"/models/team-b/secret{CHAT}",
            f"/models/team-a/../team-b/secret{CHAT}",
            f"/models/team-a%2f..%2fteam-b/secret{CHAT}",
        ),
        *(f"/models/*/*{CHAT}", f"/models//secret{CHAT}", f"/models/secret{CHAT}", f"/models/team-a/chat/..{CHAT}"),
        *(
            f"/models/team-a/chat/models/team-b/secret{CHAT}",
            f"/models/team-a/chat{CHAT}/../embeddings",
            "/models/team-a/chat",
        ),
        *(
            f"/models/team-a/chat/{CHAT}",
            f"/models/team-a/ch%61t{CHAT}",
            f"/models/TEAM-A/chat{CHAT}",
            "/models/team-a/chat/v1",
        ),
        *(
            f"/models/team-a/chat{CHAT};x",
            f"/models/team-a;x/chat{CHAT}",
            f"/models/team-a/chat%00{CHAT}",
            "/models/",
            "/models",
        ),
    ],
)
async def test_bad_input_42_no_spelling_of_an_address_reaches_the_model_of_others(path: str) -> None:
    async with running(answers()) as (bed, [pod]):
        bed.table.put(OTHER, "secret")
        bed.table.move(OTHER, [("127.0.0.1", pod.port)])
        assert (await ask(bed, f"Authorization: Bearer {KEY}", path=path)).status == 404
        assert not pod.requests


async def test_bad_input_57_nothing_that_a_client_claims_to_be_reaches_a_pod() -> None:
    claims = [
        *("X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: a", "X-Forwarded-Proto: https", "Forwarded: for=10.0.0.1"),
        *("X-Real-IP: 10.0.0.1", "X-User: root", "X-Remote-User: root", "X-Remote-Group: system:masters", "Via: 1.1 a"),
        *("X-Label-Selector: a=b", "Impersonate-User: root", "X-Original-URL: /admin", "X-Rewrite-URL: /admin"),
        *(
            "X-HTTP-Method-Override: DELETE",
            "Keep-Alive: timeout=9",
            "TE: trailers",
            "Trailer: X",
            "Proxy-Connection: close",
        ),
        *(
            "Connection: X-User, keep-alive",
            "Cookie: a=b",
            "Origin: http://a",
            "Referer: http://a",
            "Content-Language: x",
        ),
    ]
    async with running(answers()) as (bed, [pod]):
        assert (await ask(bed, f"Authorization: Bearer {KEY}", *claims)).status == 200
        (sent,) = pod.requests
    names = {line.partition(b":")[0].lower() for line in sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert names <= {b"content-type", b"content-length", b"host", b"x-request-id", b"traceparent"}


WORDS = [
    "a\r\nX-Injected: 1\r\n\r\nowned",
    'a"} 1\nmoorage_gateway_owned 1\n',
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("words", WORDS)
async def test_bad_input_58_words_of_a_client_stay_words(words: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(answers()) as (bed, _):
        bed.keys.put("other", ApiKey(id="all", digest=DIGEST, everything=True))
        for name in ("b", "c"):
            bed.table.put(ModelKey(name, "twin"), words)
        for key in (KEY, "mrg_all_s3cret"):
            async with bed.gateway.client() as client:
                await client.send(post(named(words), f"Authorization: Bearer {key}", path=CHAT))
                reply = await client.reply()
                assert reply.status in {400, 404}
                assert "x-injected" not in reply.headers
                assert b"\n" not in reply.body
                assert reply.headers["content-type"] == "application/json"
                # The next answer is the next: nothing of ours was split.
                await client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await client.reply()).status == 200
    assert not [record for record in caplog.records if words in record.getMessage()]


async def test_bad_input_41_a_token_that_was_taken_away_works_for_ten_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    passed, real = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + passed)
    async with running(answers()) as (bed, _):
        bed.reviews.users["token"] = User("somebody")
        bed.reviews.allowed.add(("somebody", MODEL))
        token = "Authorization: Bearer token"
        assert (await ask(bed, token)).status == 200
        bed.reviews.allowed.clear()
        passed = 10.5
        assert (await ask(bed, token)).status == 404
        bed.reviews.users.clear()
        passed = 21.0
        assert (await ask(bed, token)).status == 401


async def test_bad_input_41_a_key_that_was_taken_away_works_no_longer_even_on_the_same_connection() -> None:
    async with running(answers()) as (bed, _), bed.gateway.client() as client:
        for status in (200, 401):
            await client.send(post(BODY, f"Authorization: Bearer {KEY}", path=CHAT))
            assert (await client.reply()).status == status
            bed.keys.remove("uid")


async def test_bad_input_46_a_body_over_the_limit_reaches_no_pod() -> None:
    async with running(answers(), limits=Limits(body_bytes=1000)) as (bed, [pod]):
        reply = await ask(bed, f"Authorization: Bearer {KEY}", body=named("chat") + b" " * 1000)
        assert reply.status == 413
        assert not pod.requests


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "context_length_exceeded"), (400, "invalid"), (422, "x"), (429, "queue_full"), (500, "x")],
)
async def test_bad_input_48_to_54_what_a_pod_says_of_a_request_is_the_answer(status: int, code: str) -> None:
    """Tokens, parameters, inputs and images are judged by the runtime, which knows its model."""
    said = json.dumps({"error": {"message": "no", "type": "t", "param": None, "code": code}}).encode()
    answer = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%b"
    async with running(answers(answer % (status, len(said), said)), answers(OK)) as (bed, pods):
        bed.table.move(MODEL, [("127.0.0.1", pods[0].port)])
        reply = await ask(bed, f"Authorization: Bearer {KEY}")
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, said, "7")
        assert len(pods[0].requests) == 1
