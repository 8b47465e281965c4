"""Answers requests: prompt to tokens, tokens to the batch, what comes out to the client as it comes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from moorage_common.http.message import EVENT_STREAM, Answer, Refusal, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.openai_errors import error_body
from moorage_runtime.engines.loopback import Flow
from moorage_runtime.generation.answers import DONE, Whole, Writer, failed, usage
from moorage_runtime.generation.choice import Choice, Generation, GenerationFailed
from moorage_runtime.generation.encoder import Encoder
from moorage_runtime.generation.request import Body, Sampling, check_tokens, read, refuse


class Engine(Protocol):
    """What makes tokens: `batch.Batch`, or a stand-in."""

    @property
    def running(self) -> int:
        """How many requests it works on."""

    def submit(self, prompt: Sequence[int], sampling: Sampling, limit: int) -> Generation:
        """Begin an answer of at most `limit` tokens; raise GenerationFailed where there is no engine any more."""

    async def turns(self) -> None:
        """Wait until its loop has come round."""


class Tokenizer(Protocol):
    """What turns text into tokens and back: `tokens.Words`, or a stand-in."""

    vocabulary: int
    ends: frozenset[int]

    def encode(self, text: str) -> list[int]:
        """Give the tokens of a prompt."""

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Give the tokens of a chat by the model's template; raise ValueError where the template refuses it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Give the text of tokens, without those that are marks."""

    def name(self, token: int) -> str:
        """Give the text of one token, marks included."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request that is being answered."""

    body: Body
    choices: list[Choice]
    writer: Writer
    prompt_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        """What it has cost so far."""
        return usage(self.prompt_tokens, sum(choice.count for choice in self.choices))


class Service:
    """One model."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, name: str, context: int, defaults: Sampling) -> None:
        """Answer as the model `name`."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._name = name
        self._context = context
        self._defaults = defaults
        self.encoder = Encoder()
        """Whoever serves this looks whether it is stuck."""

    async def handle(self, request: Request, responder: Responder) -> None:
        """Answer one request; cancelled when the client leaves."""
        if request.method == "GET":
            await self._engine.turns()
            responder.send(json_answer(200, {"running": self._engine.running}))
            return
        chat = request.path.endswith("/chat/completions")
        body, sampling = read(request.body, vocabulary=self._tokenizer.vocabulary, defaults=self._defaults)
        encode = partial(self._chat_tokens if chat else self._tokens, body)
        try:
            prompts = await self.encoder.run(encode, len(request.body))
        except GenerationFailed as failure:
            raise Refusal(_failure(failure)) from failure
        for prompt in prompts:
            self._check_length(prompt)
        job = self._begin(body, sampling, prompts, chat=chat)
        try:
            await (_Stream(job, responder).run() if body.stream else _whole(job, responder))
        except* GenerationFailed as failure:
            _give_up(responder, failure.exceptions[0])
        finally:
            for choice in job.choices:
                choice.cancel()

    def _begin(self, body: Body, sampling: Sampling, prompts: list[list[int]], *, chat: bool) -> Job:
        writer = Writer(
            identity=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self._name,
            chat=chat,
            logprobs=sampling.logprobs is not None,
            name=self._tokenizer.name,
        )
        choices: list[Choice] = []
        try:
            for prompt in prompts:
                limit = min(body.limit or self._context, self._context - len(prompt))
                for number in range(body.n):
                    seeded = sampling if sampling.seed is None else _seeded(sampling, sampling.seed + number)
                    made = self._engine.submit(prompt, seeded, limit)
                    ends = () if sampling.ignore_eos else self._tokenizer.ends
                    choices.append(Choice(made, self._tokenizer.decode, body.stops, ends))
        except GenerationFailed as failure:
            for choice in choices:
                choice.cancel()
            raise Refusal(_failure(failure)) from failure
        return Job(body=body, choices=choices, writer=writer, prompt_tokens=sum(map(len, prompts)))

    def _tokens(self, body: Body) -> list[list[int]]:
        prompts = []
        for prompt in body.prompts():
            if isinstance(prompt, str):
                prompts.append(self._tokenizer.encode(prompt))
            else:
                check_tokens(prompt, self._tokenizer.vocabulary)
                prompts.append(prompt)
        if not all(prompts):
            refuse("prompt", "it has no token")
        return prompts

    def _chat_tokens(self, body: Body) -> list[list[int]]:
        try:
            return [self._tokenizer.chat(body.plain_messages())]
        except ValueError as error:
            refuse("messages", f"the model's chat template refuses them: {error}")

    def _check_length(self, prompt: list[int]) -> None:
        """Refuse a prompt that leaves no room for an answer, in llama.cpp's words, which the front knows."""
        if len(prompt) < self._context:
            return
        error = {
            "code": 400,
            "type": "exceed_context_size_error",
            "message": "the prompt is longer than the context",
            "n_prompt_tokens": len(prompt),
            "n_ctx": self._context,
        }
        raise Refusal(json_answer(400, {"error": error}))


async def _whole(job: Job, responder: Responder) -> None:
    answers = [Whole() for _ in job.choices]

    async def fill(choice: Choice, answer: Whole) -> None:
        async for piece in choice.pieces():
            answer.add(piece)

    async with asyncio.TaskGroup() as group:
        for choice, answer in zip(job.choices, answers, strict=True):
            group.create_task(fill(choice, answer))
    responder.send(json_answer(200, job.writer.whole(answers, job.usage)))


class _Stream:
    """Writes the events of a stream; it begins with the first token, so that what fails before is a plain error."""

    def __init__(self, job: Job, responder: Responder) -> None:
        self._job = job
        self._responder = responder
        self._flow = Flow()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for index, choice in enumerate(self._job.choices):
                group.create_task(self._one(index, choice))
        if self._job.body.wants_usage:
            self._responder.write(self._job.writer.usage(self._job.usage))
        self._responder.write(DONE)
        self._responder.finish()

    async def _one(self, index: int, choice: Choice) -> None:
        writer, offset, begun = self._job.writer, 0, False
        async for piece in choice.pieces():
            if not self._responder.started:
                self._responder.start(200, EVENT_STREAM, flow=self._flow)
            await self._flow.open.wait()
            if not begun:
                begun = True
                self._responder.write(writer.first(index))
            counts = {"predicted_n": choice.count} if piece.finish else None
            self._responder.write(writer.piece(index, piece, offset, counts))
            offset += len(piece.text)


def _seeded(sampling: Sampling, seed: int) -> Sampling:
    return msgspec.structs.replace(sampling, seed=seed)


def _failure(failure: BaseException) -> Answer:
    return Answer(500, error_body(f"The engine gave the request up: {failure}.", kind="server_error"))


def _give_up(responder: Responder, failure: BaseException) -> None:
    if not responder.started:
        responder.send(_failure(failure))
        return
    responder.write(failed(f"The engine gave the request up: {failure}."))
    responder.finish()
