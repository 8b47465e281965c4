"""`/v1/generate`: what becomes of a body, of a pod's answer, and of errors on either side."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from moorage_gateway import generate
from moorage_gateway.alias import Alias, Share
from moorage_gateway.generate import ANSWER_BYTES
from moorage_gateway.hold import HoldLimits, State
from moorage_gateway.prefix import PrefixSettings
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import Reply, post, until
from tests.unit.gateway.support import KEY, MODEL, Bed, Pod, answers, running

PATH = "/v1/generate"
CHAT_ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "cold"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}
TEXT_ANSWER = {"choices": [{"text": " cold", "index": 0}], "usage": {"prompt_tokens": 4, "completion_tokens": 1}}
ERROR = {"error": {"message": "no", "type": "invalid_request_error", "param": "max_tokens", "code": None}}


def whole(content: object, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer of a pod."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*pieces: bytes) -> bytes:
    """The same in chunks, without the last one."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def body(**more: Any) -> bytes:
    fields = {"model_id": "chat", "inputs": "What is the opposite of hot?", **more}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


async def ask(bed: Bed, content: bytes | None = None, path: str = PATH) -> Reply:
    return await bed.gateway.ask(post(content or body(), f"Authorization: Bearer {KEY}", path=path))


def sent(pod: Pod) -> list[tuple[str, dict[str, Any]]]:
    """The requests of a pod: path and body."""
    parted = (request.split(b"\r\n\r\n", 1) for request in pod.requests)
    return [(head.split()[1].decode(), json.loads(content)) for head, content in parted]


async def test_inputs_without_a_scenario_go_as_they_are_as_a_chat() -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, [pod]):
        reply = await ask(bed, body(parameters={"max_new_tokens": 16, "temperature": 0, "top_p": 0.9}))

        assert reply.status == 200
        assert json.loads(reply.body) == {"generated_text": "cold", "model": "team-a/chat", "tokens": 2}
        asked = {"role": "user", "content": "What is the opposite of hot?"}
        parameters = {"max_tokens": 16, "temperature": 0.0, "top_p": 0.9}
        assert sent(pod) == [("/v1/chat/completions", {"model": "chat", "messages": [asked], **parameters})]


async def test_parameters_that_are_left_out_are_the_models_own() -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, [pod]):
        assert (await ask(bed)).status == 200
        assert set(sent(pod)[0][1]) == {"model", "messages"}


async def test_a_model_without_chats_completes_the_prompt() -> None:
    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(ERROR, "404 Not Found") if b"POST /v1/chat" in request else whole(TEXT_ANSWER))

    async with running(script) as (bed, [pod]):
        reply = await ask(bed, body(parameters={"max_new_tokens": 1}))
        assert json.loads(reply.body) == {"generated_text": " cold", "model": "team-a/chat", "tokens": 1}
        assert sent(pod)[1] == (
            "/v1/completions",
            {"model": "chat", "prompt": "What is the opposite of hot?", "max_tokens": 1},
        )


async def test_the_address_names_the_model_and_the_body_need_not() -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, [pod]):
        reply = await ask(bed, body(model_id=None), f"/models/{MODEL}{PATH}")
        assert reply.status == 200
        reply = await ask(bed, body(model_id="whatever"), f"/models/{MODEL}{PATH}")
        assert reply.status == 200
        assert len(pod.requests) == 2


async def test_an_alias_leads_to_a_model_which_is_told() -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, _):
        bed.aliases.put(Alias(ModelKey("team-a", "prod"), (Share(MODEL, 1),)))
        reply = await ask(bed, body(model_id="prod"))
        assert json.loads(reply.body)["model"] == reply.headers["x-moorage-model"] == "team-a/chat"


async def test_prefixes_choose_the_pod_of_these_requests_too() -> None:
    async with running(*[answers(whole(CHAT_ANSWER))] * 3) as (bed, pods):
        bed.table.put(MODEL, "chat", prefix=PrefixSettings())
        for _ in range(6):
            assert (await ask(bed)).status == 200
        assert sorted(len(pod.requests) for pod in pods) == [0, 0, 6]


@pytest.mark.parametrize(
    ("content", "param", "said"),
    [
        (b"", None, "The body is not a JSON object"),
        (b"[]", None, "The body is not a JSON object"),
        (b"\xff\xfe", None, "The body is not a JSON object"),
        (b'{"a":' + b"[" * 100_000, None, "The body is not a JSON object"),
        (body(model_id=None), "model_id", "`model_id` is missing: it has to be a text"),
        (body(model_id=7), "model_id", "`model_id` is 7: it has to be a text"),
        (body(inputs=None), "inputs", "`inputs` is missing"),
        (body(inputs=""), "inputs", "`inputs` is empty"),
        (body(inputs=["a"]), "inputs", '`inputs` is ["a"]: it has to be a text'),
        (b'{"model_id":"chat","inputs":"\\ud800"}', None, "The body is not a JSON object"),
        (body(scenario=3), "scenario", "`scenario` is 3: it has to be a text"),
        (body(scenario="translate"), "scenario", "`scenario` is 'translate': the scenarios are qa, rewrite"),
        (body(stream=True), "stream", "`stream` is not a field: there are model_id, inputs, scenario, parameters"),
        (body(parameters=[]), "parameters", "`parameters` is not a JSON object"),
        (
            body(parameters={"max_tokens": 3}),
            "parameters.max_tokens",
            "is not a parameter: there are max_new_tokens, temperature, top_p",
        ),
        (
            body(parameters={"max_new_tokens": -1}),
            "parameters.max_new_tokens",
            "is -1: it has to be a whole number from 1",
        ),
        (body(parameters={"max_new_tokens": 1.5}), "parameters.max_new_tokens", "is 1.5: it has to be a whole number"),
        (body(parameters={"max_new_tokens": "9"}), "parameters.max_new_tokens", 'is "9": it has to be'),
        (body(parameters={"max_new_tokens": 10**10}), "parameters.max_new_tokens", "from 1 to 2147483647"),
        (body(parameters={"temperature": 2.1}), "parameters.temperature", "is 2.1: it has to be a number from 0 to 2"),
        (
            b'{"model_id":"chat","inputs":"a","parameters":{"temperature":NaN}}',
            None,
            "The body is not a JSON object",
        ),
        (body(parameters={"temperature": True}), "parameters.temperature", "is true: it has to be a number"),
        (body(parameters={"top_p": -0.1}), "parameters.top_p", "is -0.1: it has to be a number from 0 to 1"),
    ],
)
async def test_bad_input_49_a_body_that_is_not_as_it_has_to_be_is_told_and_never_sent(
    content: bytes, param: str | None, said: str
) -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, [pod]):
        bed.templates.update({"qa": "{{ inputs }}", "rewrite": "{{ inputs }}"})
        reply = await bed.gateway.ask(post(content, f"Authorization: Bearer {KEY}", path=PATH))
        assert (reply.status, reply.error["param"]) == (400, param)
        assert said in reply.error["message"]
        assert not pod.requests


async def test_without_any_scenario_that_is_told() -> None:
    async with running(answers()) as (bed, _):
        assert "the scenarios are none" in (await ask(bed, body(scenario="qa"))).error["message"]


async def test_bad_input_42_a_model_of_others_is_not_found() -> None:
    async with running(answers()) as (bed, _):
        bed.table.put(ModelKey("team-b", "secret"), "secret")
        theirs, nobodys = await ask(bed, body(model_id="secret")), await ask(bed, body(model_id="absent"))
        assert theirs.status == nobodys.status == 404
        assert theirs.error["message"].replace("secret", "absent") == nobodys.error["message"]


async def test_a_model_that_is_not_ready_says_why() -> None:
    async with running() as (bed, _):
        bed.table.put(MODEL, "chat", state=State(why_not="waiting for 2 nvidia.com/gpu, position 3 of 5"))
        reply = await ask(bed)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert "position 3 of 5" in reply.error["message"]


async def test_a_template_that_fails_with_these_inputs_is_an_error_of_its_own() -> None:
    async with running(answers()) as (bed, [pod]):
        bed.templates.update({"qa": "{{ inputs }}" * 10})
        reply = await ask(bed, body(inputs="x" * 2**20, scenario="qa"))
        assert (reply.status, reply.error["code"]) == (500, "template_failed")
        assert "'qa' failed with these inputs: it writes more than" in reply.error["message"]
        assert not pod.requests


@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many Requests", "500 Internal Server Error"])
async def test_errors_of_the_pod_are_passed_as_they_are(status: str) -> None:
    async with running(answers(whole(ERROR, status, "Retry-After: 7"))) as (bed, _):
        reply = await ask(bed)
        assert (reply.status, reply.error) == (int(status[:3]), ERROR["error"])
        assert reply.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"Hello", {"choices": []}, {"choices": [{"message": {"content": 7}}]}, b"\xff"]
)
async def test_an_answer_that_is_none_is_a_502(content: object) -> None:
    async with running(answers(whole(content))) as (bed, _):
        reply = await ask(bed)
        assert (reply.status, reply.error["code"]) == (502, "backend_answer")


async def test_an_answer_without_usage_has_no_number_of_tokens() -> None:
    async with running(answers(whole({"choices": [{"message": {"content": None}}]}))) as (bed, _):
        assert json.loads((await ask(bed)).body) == {"generated_text": "", "model": "team-a/chat", "tokens": None}


async def test_an_answer_in_chunks_is_put_together() -> None:
    text = json.dumps(CHAT_ANSWER).encode()
    async with running(answers(chunked(text[:20], text[20:]) + b"0\r\n\r\n")) as (bed, _):
        assert json.loads((await ask(bed)).body)["generated_text"] == "cold"


async def test_an_answer_without_end_is_not_kept() -> None:
    def endless(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"x" * (ANSWER_BYTES + 1)))

    async with running(endless) as (bed, _):
        reply = await ask(bed)
        assert (reply.status, reply.error["code"]) == (502, "backend_answer")
        assert str(ANSWER_BYTES) in reply.error["message"]


async def test_fault_29_a_pod_that_goes_is_passed_over_and_one_that_goes_in_the_middle_is_a_502() -> None:
    def goes(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def breaks(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b'{"choices": [{"mess'))
        writer.close()

    def breaks_too(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(CHAT_ANSWER)[:-5])
        writer.close()

    async with running(goes, answers(whole(CHAT_ANSWER))) as (bed, _):
        for _ in range(4):
            assert json.loads((await ask(bed)).body)["generated_text"] == "cold"
    for script in (breaks, breaks_too):
        async with running(script) as (bed, _):
            reply = await ask(bed)
            assert (reply.status, reply.error["code"]) == (502, "backend_gone")


async def test_a_request_waits_for_a_model_that_wakes() -> None:
    async with running(answers(whole(CHAT_ANSWER)), hold=HoldLimits()) as (bed, [pod]):
        bed.table.put(MODEL, "chat", state=State(waits=True, takes=1))
        client = await bed.start(post(body(), f"Authorization: Bearer {KEY}", path=PATH))
        room = bed.table.named("chat")[0].room
        assert room is not None
        await until(lambda: len(room) == 1)
        bed.table.move(MODEL, [("127.0.0.1", pod.port)])
        assert json.loads((await client.reply()).body)["generated_text"] == "cold"


async def test_a_client_that_leaves_is_not_worked_for() -> None:
    async with running(lambda *_: None) as (bed, [pod]):
        async with bed.gateway.client() as client:
            await client.send(post(body(), f"Authorization: Bearer {KEY}", path=PATH))
            await until(lambda: bool(pod.requests))
        await asyncio.wait_for(pod.gone.wait(), 5)
        await until(lambda: bool(bed.ended))
        assert [exchange.error for exchange in bed.ended] == ["client"]
        assert next(iter(bed.table.backends(MODEL))).in_flight == 0


async def test_a_client_that_leaves_after_the_chat_was_refused_is_not_worked_for() -> None:
    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"POST /v1/chat" in request:
            writer.write(whole(ERROR, "404 Not Found"))

    async with running(script) as (bed, [pod]):
        async with bed.gateway.client() as client:
            await client.send(post(body(), f"Authorization: Bearer {KEY}", path=PATH))
            await until(lambda: len(pod.requests) == 2)
        await asyncio.wait_for(pod.gone.wait(), 5)
        await until(lambda: len(bed.ended) == 2)
        assert next(iter(bed.table.backends(MODEL))).in_flight == 0


async def test_the_connection_goes_on_after_it() -> None:
    async with running(answers(whole(CHAT_ANSWER))) as (bed, [pod]), bed.gateway.client() as client:
        for _ in range(3):
            await client.send(post(body(), f"Authorization: Bearer {KEY}", path=PATH))
            assert (await client.reply()).status == 200
        assert pod.connections == 1


async def test_bad_input_60_long_answers_that_do_not_end_fill_no_memory_and_leave_short_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generate, "ANSWERS_BYTES", 300_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    short = whole(CHAT_ANSWER)

    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(short if b"short" in request else head + b" " * 100_000)

    async with running(script) as (bed, [pod]):
        shelf = bed.front.shelf
        content = json.dumps({"model_id": "chat", "inputs": "long"}).encode()
        clients = [await bed.start(post(content, f"Authorization: Bearer {KEY}", path=PATH)) for _ in range(6)]
        await until(lambda: len(pod.requests) == 6 and shelf.taken > 200_000)
        assert shelf.taken <= 300_000
        reply = await ask(bed, json.dumps({"model_id": "chat", "inputs": "short"}).encode())
        assert (reply.status, json.loads(reply.body)["generated_text"]) == (200, "cold")
        for client in clients:
            client.writer.close()
        await until(lambda: shelf.taken == 0)


async def test_bad_input_60_one_odd_character_does_not_make_a_long_input_take_four_times_as_much() -> None:
    inputs = "x" * 1_000_000 + "\U0001f642"
    async with running(lambda _pod, _request, _writer: None) as (bed, [pod]):
        content = json.dumps({"model_id": "chat", "inputs": inputs}, ensure_ascii=False).encode()
        tracemalloc.start()
        try:
            await bed.start(post(content, f"Authorization: Bearer {KEY}", path=PATH))
            await until(lambda: len(pod.requests) == 1)
            assert json.loads(pod.requests[0].partition(b"\r\n\r\n")[2])["messages"][0]["content"] == inputs
            pod.requests.clear()
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert taken < 6 * len(content)


async def test_bad_input_60_a_pod_that_tells_a_million_choices_takes_the_time_of_nobody() -> None:
    async with running(answers(whole(b'{"choices":[%b]}' % b",".join([b"{}"] * 1000)))) as (bed, _):
        assert (await ask(bed)).error["code"] == "backend_answer"
