"""What a request gets: 401 before anything else, 404 for what one may not see, and routes by the model."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from moorage_common.http.message import Limits
from moorage_gateway.access import User
from moorage_gateway.hold import State
from moorage_gateway.keys import ApiKey
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import Reply, get, post
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, Bed, answers, running

OTHER = ModelKey("team-b", "secret")


def body(model: Any = "chat", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **more}).encode()


async def ask(bed: Bed, content: bytes = b"", path: str = CHAT, key: str | None = KEY) -> Reply:
    headers = [f"Authorization: Bearer {key}"] if key is not None else []
    return await bed.gateway.ask(post(content or body(), *headers, path=path))


async def listed(bed: Bed, key: str) -> list[str]:
    reply = await bed.gateway.ask(get("/v1/models", f"Authorization: Bearer {key}"))
    assert reply.status == 200
    return [model["id"] for model in json.loads(reply.body)["data"]]


async def retrieve(bed: Bed, name: str, key: str = KEY) -> Reply:
    return await bed.gateway.ask(get(f"/v1/models/{name}", f"Authorization: Bearer {key}"))


@pytest.mark.parametrize("name", ["chat", "team-a/chat", "team-a%2Fchat"])
async def test_one_model_is_told_by_any_of_its_names(name: str) -> None:
    async with running(answers()) as (bed, _):
        reply = await retrieve(bed, name)
        assert reply.status == 200
        told = json.loads(reply.body)
        assert (told["id"], told["object"], told["ready"]) == ("team-a/chat", "model", True)
        assert "sleeping" not in told


async def test_bad_input_42_55_a_model_of_others_is_told_as_little_of_as_one_that_is_none() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(ModelKey("team-b", "secret"), "secret")
        there, absent = await retrieve(bed, "team-b%2Fsecret"), await retrieve(bed, "team-b%2Fabsent")
        assert there.status == absent.status == 404
        assert there.error["code"] == absent.error["code"] == "model_not_found"
        reply = await bed.gateway.ask(post(b"", f"Authorization: Bearer {KEY}", path="/v1/models/chat"))
        assert (reply.status, reply.headers["allow"]) == (405, "get")


async def test_a_model_that_sleeps_is_listed_as_one_that_a_request_wakes() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(ModelKey("team-a", "chat"), "chat", state=State(waits=True, scaled=True, sleeping=True))
        assert "sleeping" not in json.loads((await retrieve(bed, "chat")).body), "a pod is still ready"
        bed.table.move(ModelKey("team-a", "chat"), [])
        told = json.loads((await retrieve(bed, "chat")).body)
        assert (told["ready"], told["sleeping"]) == (False, True)


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/models/team-a/chat/v1/completions", "/nowhere", "/docs"])
@pytest.mark.parametrize(
    "header",
    [
        *(
            "X: y",
            "Authorization: ",
            "Authorization: Bearer",
            "Authorization: Bearer wrong",
            "Authorization: Basic a:b",
        ),
        *(f"Authorization: Bearer {KEY}x", "Authorization: Bearer mrg_nobody_s3cret", f"Authorization: {KEY}"),
        f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}",
    ],
)
async def test_bad_input_41_without_a_valid_credential_everything_is_the_same_401(path: str, header: str) -> None:
    async with running(answers()) as (bed, [pod]):
        reply = await bed.gateway.ask(post(body(), *header.split("\r\n"), path=path))

        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("bearer")
        assert reply.error["code"] == "invalid_api_key"
        assert not pod.requests


@pytest.mark.parametrize(
    "begin", [post(b"x" * 100_000), post().replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")]
)
async def test_bad_input_41_a_large_body_without_a_credential_is_not_taken(begin: bytes) -> None:
    async with running(answers()) as (bed, _), bed.gateway.client() as client:
        head = begin.partition(b"\r\n\r\n")[0]
        await client.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.reply()).status == 401
        assert await client.closed()


async def test_bad_input_41_strangers_cannot_fill_the_room_for_bodies() -> None:
    large = body(padding="x" * 100_000)
    limits = Limits(buffered_bytes=500_000)
    async with running(answers(), limits=limits) as (bed, _), AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(bed.gateway.client()) for _ in range(10)]
        for number, stranger in enumerate(strangers):
            # Tokens that nobody knows: whether they are any good has to be asked once the request is whole.
            await stranger.send(post(large, f"Authorization: Bearer token-{number}", path=CHAT)[:-1])
        refused = [await stranger.reply() for stranger in strangers[1:]]

        assert {reply.status for reply in refused} == {503}
        for _ in range(3):
            assert (await ask(bed, large)).status == 200
    assert bed.gateway.connections.of_strangers == bed.gateway.connections.buffered == 0


async def test_bad_input_42_a_model_of_others_looks_like_one_that_is_not_there() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(OTHER, "secret")

        for path, content in [(CHAT, body("secret")), (CHAT, body(str(OTHER))), (f"/models/{OTHER}{CHAT}", body("x"))]:
            theirs = await ask(bed, content, path)
            nobodys = await ask(bed, content.replace(b"secret", b"absent"), path.replace("secret", "absent"))
            assert theirs.status == nobodys.status == 404
            assert theirs.error["code"] == nobodys.error["code"] == "model_not_found"
            assert theirs.error["message"].replace("secret", "absent") == nobodys.error["message"]
        assert await listed(bed, KEY) == [str(MODEL)]


@pytest.mark.parametrize(
    "path",
    [
        *("/invocations", "/tokenize", "/pause", "/sleep", "/collective_rpc", "/v1/load_lora_adapter", "/metrics"),
        *("/health/detailed", "/v1/chat/completions/", "//v1/chat/completions", "/v1/../v1/chat/completions"),
        *("/models/team-a/chat/metrics", "/models/team-a/chat//v1/completions", "/V1/chat/completions"),
    ],
)
async def test_bad_input_56_routes_of_engines_are_not_there(path: str) -> None:
    async with running(answers()) as (bed, [pod]):
        assert (await ask(bed, path=path)).status == 404
        assert not pod.requests


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", CHAT, "post"), ("DELETE", "/v1/models", "get")])
async def test_bad_input_55_a_method_that_a_route_has_not(method: str, path: str, allowed: str) -> None:
    async with running(answers()) as (bed, _):
        request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
        reply = await bed.gateway.ask(request)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"x", b"[]", b'{"messages":[]}', b'{"model":1}', b'{"model":null}', b'{"model":"chat"', b"\xff\xfe"),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"chat"}',
    ],
)
async def test_bad_input_47_a_body_that_names_no_model(content: bytes) -> None:
    async with running(answers()) as (bed, [pod]):
        request = post(content, f"Authorization: Bearer {KEY}", path=CHAT)
        reply = await bed.gateway.ask(request)
        assert (reply.status, reply.error["param"]) == (400, "model")
        assert not pod.requests


async def test_a_model_may_be_called_by_its_served_name_its_name_or_both_names() -> None:
    async with running(answers()) as (bed, [pod]):
        bed.table.put(MODEL, "smol")
        for name in ("smol", "chat", "team-a/chat"):
            assert (await ask(bed, body(name, seed=7))).status == 200
        assert (await ask(bed, body("whatever"), f"/models/{MODEL}/v1/completions")).status == 200

        sent = [json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in pod.requests]
        assert [request["model"] for request in sent] == ["smol"] * 4
        assert sent[1]["seed"] == 7
        assert pod.requests[3].startswith(b"POST /v1/completions ")


async def test_two_models_of_one_name_are_told_apart_by_their_namespaces() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(ModelKey("team-b", "chat"), "chat")
        assert (await ask(bed)).status == 200  # the key may use one of them only

        bed.keys.put("other", ApiKey(id="all", digest=DIGEST, everything=True))
        reply = await ask(bed, key="mrg_all_s3cret")
        assert reply.status == 400
        assert "team-a/chat, team-b/chat" in reply.error["message"]


async def test_bad_input_42_nobody_takes_over_the_full_name_of_a_model_by_serving_theirs_under_it() -> None:
    async with running(answers()) as (bed, [pod]):
        bed.keys.put("other", ApiKey(id="all", digest=DIGEST, everything=True))
        bed.table.put(ModelKey("team-b", "thief"), str(MODEL))

        assert (await ask(bed, body(str(MODEL)), key="mrg_all_s3cret")).status == 200
        assert len(pod.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"chat","model":"secret"}',
        b'{"model":"secret","model":"chat"}',
        b'{"model":"chat","mod\\u0065l":"secret"}',
    ],
)
@pytest.mark.parametrize("path", [CHAT, f"/models/{MODEL}/v1/completions", "/embeddings/text"])
async def test_bad_input_47_a_model_that_is_named_twice_reaches_no_pod(content: bytes, path: str) -> None:
    async with running(answers()) as (bed, [pod]):
        bed.table.put(MODEL, "smol")
        reply = await ask(bed, content, path)
        assert (reply.status, reply.error["param"]) == (400, "model")
        assert not pod.requests


async def test_the_embedding_services_routes_pass_a_body_without_a_model() -> None:
    async with running(answers()) as (bed, [pod]):
        assert (await ask(bed, b'{"texts":["a"]}', f"/models/{MODEL}/embeddings/text")).status == 200
        assert (await ask(bed, b'{"model":"chat","texts":["a"]}', "/embeddings/text")).status == 200

        assert [json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in pod.requests] == [{"texts": ["a"]}] * 2


async def test_a_model_that_is_not_ready_says_why_and_never_404() -> None:
    async with running() as (bed, _):
        bed.table.put(MODEL, "chat", state=State(why_not="waiting for 2 nvidia.com/gpu, position 3 of 5"))
        reply = await ask(bed)

        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert "waiting for 2 nvidia.com/gpu, position 3 of 5" in reply.error["message"]


async def test_a_token_of_kubernetes_may_what_the_api_server_says() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(OTHER, "secret")
        bed.reviews.users["token"] = User("system:serviceaccount:team-a:app")
        bed.reviews.allowed.add(("system:serviceaccount:team-a:app", MODEL))

        assert await listed(bed, "token") == [str(MODEL)]
        assert (await ask(bed, key="token")).status == 200
        assert (await ask(bed, body("secret"), key="token")).status == 404
        # What was asked once is remembered.
        asked = len(bed.reviews.asked)
        assert (await ask(bed, key="token")).status == 200
        assert len(bed.reviews.asked) == asked


async def test_cluster_02_while_keys_cannot_be_checked_they_are_refused_in_words_and_tokens_are_not() -> None:
    async with running(answers()) as (bed, pods):
        bed.reviews.users["token"] = User("app")
        bed.reviews.allowed.add(("app", MODEL))
        assert (await ask(bed)).status == 200
        bed.keys.checked = False

        for key in (KEY, f"{KEY}x"):
            refused = await ask(bed, key=key)
            assert (refused.status, refused.error["code"]) == (503, "not_checked")
            assert "cannot watch the namespace" in refused.error["message"]
            assert "retry-after" in refused.headers
        assert (await ask(bed, key="token")).status == 200
        assert len(pods[0].requests) == 2

        bed.keys.checked = True
        assert (await ask(bed)).status == 200
        assert (await ask(bed, key=f"{KEY}x")).status == 401


async def test_health_is_for_everybody() -> None:
    async with running() as (bed, _):
        assert (await bed.gateway.ask(get("/healthz"))).status == 200
