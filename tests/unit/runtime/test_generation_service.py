"""Requests and answers of the engine transformers, over HTTP, with a stand-in for what makes the tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from moorage_common.http.connections import Connections
from moorage_common.http.message import Limits
from moorage_common.http.server import ServerConnection
from moorage_runtime.generation.answers import Token
from moorage_runtime.generation.choice import GenerationFailed
from moorage_runtime.generation.encoder import Encoder
from moorage_runtime.generation.request import Sampling
from moorage_runtime.generation.service import Service
from tests.unit.runtime.support import events, until

END = 0
CONTEXT = 20


class Letters:
    """A tokenizer whose tokens are characters; END is the mark that ends a text."""

    vocabulary = 0x110000
    ends = frozenset({END})

    def encode(self, text: str) -> list[int]:
        """One token a character."""
        return [ord(letter) for letter in text]

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Only contents count; a system's message is what a template might refuse."""
        if messages[0]["role"] == "system":
            raise ValueError("no system messages")
        return self.encode("".join(message["content"] for message in messages))

    def decode(self, tokens: Sequence[int]) -> str:
        """Marks have no text."""
        return "".join(map(chr, filter(None, tokens)))

    def name(self, token: int) -> str:
        """Marks have one here."""
        return chr(token) if token else "<end>"


@dataclass
class Echo:
    """Says what it is told to, up to the limit of the request; waits where `hold` is closed."""

    says: str = "abcdef\0"
    asked: list[tuple[Sequence[int], Sampling, int]] = field(default_factory=list)
    cancelled: int = 0
    running: int = 0
    fails_after: int | None = None
    hold: asyncio.Event | None = None

    def submit(self, prompt: Sequence[int], sampling: Sampling, limit: int) -> "Answer":
        """Begin."""
        if self.fails_after == -1:
            raise GenerationFailed("it is gone")
        self.asked.append((prompt, sampling, limit))
        self.running += 1
        return Answer(self, sampling, limit)

    async def turns(self) -> None:
        """It always does."""


class Answer:
    """One answer of Echo."""

    def __init__(self, echo: Echo, sampling: Sampling, limit: int) -> None:
        self._echo, self._sampling, self._limit = echo, sampling, limit
        self._over = False

    async def __aiter__(self) -> AsyncIterator[Token]:
        for number, letter in enumerate(self._echo.says[: self._limit]):
            if number == self._echo.fails_after:
                raise GenerationFailed("it broke")
            if self._echo.hold is not None and number:
                await self._echo.hold.wait()
            await asyncio.sleep(0)
            told = self._sampling.logprobs is not None
            yield Token(ord(letter), -0.5, ((ord("x"), -1.0),)) if told else Token(ord(letter))
        self._over = True
        self._echo.running -= 1

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            self._echo.running -= 1
            self._echo.cancelled += 1


@asynccontextmanager
async def serving(
    echo: Echo, letters: Letters | None = None, encoder: Encoder | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a free port."""
    service = Service(echo, letters or Letters(), name="m", context=CONTEXT, defaults=Sampling(temperature=0.7))
    service.encoder = encoder or service.encoder
    connections = Connections()
    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(service.handle, limits=Limits(), connections=connections, is_draining=lambda: False),
        "127.0.0.1",
        0,
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        yield client
    server.close()


async def ask(echo: Echo, **fields: Any) -> httpx.Response:
    """Ask for a completion, or with `messages` for a chat."""
    async with serving(echo) as client:
        route = "/v1/chat/completions" if "messages" in fields else "/v1/completions"
        return await client.post(route, json={"prompt": "hi", **fields} if "messages" not in fields else fields)


CHAT = [{"role": "user", "content": "hi"}]


async def test_a_completion_ends_where_the_model_says() -> None:
    answer = (await ask(Echo())).json()

    assert answer["choices"] == [{"index": 0, "text": "abcdef", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 7, "total_tokens": 9}
    assert (answer["object"], answer["model"]) == ("text_completion", "m")


async def test_a_chat_ends_at_the_limit() -> None:
    answer = (await ask(Echo(), messages=CHAT, max_completion_tokens=3)).json()

    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "abc"}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["object"] == "chat.completion"


async def test_an_answer_ends_at_the_context() -> None:
    echo = Echo()
    await ask(echo, max_tokens=1000)
    await ask(echo)
    assert [limit for _, _, limit in echo.asked] == [CONTEXT - 2, CONTEXT - 2]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_answer_and_the_work(stream: bool) -> None:
    echo = Echo(says="abcdefghi")
    answer = await ask(echo, stop=["de"], stream=stream)

    pieces = (
        [event["choices"][0] for event in events(answer.text.splitlines())[:-1]]
        if stream
        else [answer.json()["choices"][0]]
    )
    assert "".join(piece["text"] for piece in pieces) == "abc"
    assert pieces[-1]["finish_reason"] == "stop"
    assert (echo.cancelled, echo.running) == (1, 0)


async def test_a_stream_has_the_events_of_openai() -> None:
    answer = await ask(Echo(says="ab\0"), messages=CHAT, stream=True, stream_options={"include_usage": True})

    found = events(answer.text.splitlines())
    assert answer.headers["content-type"] == "text/event-stream"
    assert [event["choices"][0]["delta"] for event in found[:4]] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in found[:4]] == [None, None, None, "stop"]
    assert found[4]["choices"] == []
    assert found[4]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert found[5] == "[DONE]"
    assert len({event["id"] for event in found[:5]}) == 1


async def test_several_answers_and_prompts_have_numbers_and_seeds_of_their_own() -> None:
    echo = Echo(says="ab\0")
    answer = (await ask(echo, prompt=["one", "two"], n=2, seed=5)).json()

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert ["".join(map(chr, prompt)) for prompt, _, _ in echo.asked] == ["one", "one", "two", "two"]
    assert [sampling.seed for _, sampling, _ in echo.asked] == [5, 6, 5, 6]
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 12, "total_tokens": 18}


async def test_a_stream_of_several_answers_tells_them_apart() -> None:
    answer = await ask(Echo(says="ab\0"), n=2, stream=True)
    found = [event["choices"][0] for event in events(answer.text.splitlines())[:-1]]
    for index in (0, 1):
        assert "".join(one["text"] for one in found if one["index"] == index) == "ab"


async def test_each_request_is_sampled_its_own_way() -> None:
    echo = Echo()
    await ask(echo, temperature=0, logit_bias={"7": -100}, top_k=3, frequency_penalty=0.5, ignore_eos=True)
    await ask(echo)

    first, second = (sampling for _, sampling, _ in echo.asked)
    assert (first.temperature, first.logit_bias, first.top_k, first.ignore_eos) == (0, {7: -100}, 3, True)
    assert second == Sampling(temperature=0.7)


async def test_ignore_eos_goes_on_after_the_end() -> None:
    answer = (await ask(Echo(says="a\0b"), ignore_eos=True)).json()
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("ab", "length")


async def test_logprobs_of_a_chat() -> None:
    answer = (await ask(Echo(says="é\0"), messages=CHAT, logprobs=True, top_logprobs=1)).json()
    assert answer["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "x", "logprob": -1.0, "bytes": [120]}],
            }
        ]
    }


async def test_logprobs_of_a_completion() -> None:
    answer = (await ask(Echo(says="ab\0"), logprobs=1)).json()
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"x": -1.0}, {"x": -1.0}],
        "text_offset": [0, 1],
    }


async def test_parts_of_a_message_are_put_together() -> None:
    echo = Echo()
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    await ask(echo, messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": None}])
    assert list(echo.asked[0][0]) == [97, 98]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"9999999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"prompt": [0x110000]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"messages": CHAT, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ],
)
async def test_bad_input_49_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    echo = Echo()
    answer = await ask(echo, **fields)
    assert (answer.status_code, answer.json()["error"]["param"], echo.asked) == (400, param, [])


async def test_a_response_format_of_text_is_possible() -> None:
    assert (await ask(Echo(), response_format={"type": "text"})).status_code == 200


@pytest.mark.parametrize("prompt", ["x" * CONTEXT, "x" * (CONTEXT + 1), [5] * 5000, ["ok", "x" * CONTEXT]])
async def test_bad_input_48_a_prompt_over_the_context_never_reaches_the_engine(prompt: Any) -> None:
    echo = Echo()
    answer = await ask(echo, prompt=prompt)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", CONTEXT)
    assert error["n_prompt_tokens"] >= CONTEXT
    assert echo.asked == []


async def test_bad_input_53_a_client_that_leaves_has_its_work_cancelled() -> None:
    echo = Echo(hold=asyncio.Event())
    async with serving(echo) as client:
        async with client.stream("POST", "/v1/completions", json={"prompt": "hi", "stream": True, "n": 2}) as answer:
            await anext(answer.aiter_lines())
            assert echo.running == 2
        await until(lambda: echo.running == 0, 1.0)
        assert echo.cancelled == 2
        assert (await client.get("/probe")).json() == {"running": 0}


async def test_a_client_that_leaves_before_the_first_token_has_its_work_cancelled() -> None:
    echo = Echo(hold=asyncio.Event())
    async with serving(echo) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/completions", json={"prompt": "hi"}, timeout=0.2)
        await until(lambda: echo.cancelled == 1, 1.0)


@pytest.mark.parametrize("fails_after", [-1, 0])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_first_is_a_plain_error(stream: bool, fails_after: int) -> None:
    echo = Echo(fails_after=fails_after)
    answer = await ask(echo, stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert echo.running == 0


async def test_an_engine_that_fails_later_ends_the_stream_with_an_error() -> None:
    answer = await ask(Echo(fails_after=2), stream=True)
    found = events(answer.text.splitlines())
    assert "it broke" in found[-1]["error"]["message"]
    assert "[DONE]" not in found


async def test_an_answer_to_a_slow_reader_waits() -> None:
    """The stream is held back while the client does not read; nothing is lost."""
    says = "x" * 18
    async with (
        serving(Echo(says=says)) as client,
        client.stream("POST", "/v1/completions", json={"prompt": "h", "stream": True}) as answer,
    ):
        lines = [line async for line in answer.aiter_lines()]
    assert "".join(event["choices"][0]["text"] for event in events(lines)[:-1]) == says


async def test_json_is_what_is_answered_to_what_is_none() -> None:
    async with serving(Echo()) as client:
        answer = await client.post("/v1/completions", content=json.dumps({"prompt": 5}))
    assert answer.status_code == 400
