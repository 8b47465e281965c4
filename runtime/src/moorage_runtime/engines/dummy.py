"""A deterministic engine without a model: the contract in a child process, for fast tests of everything around it.

What it does is said by the last prompt of a request, in words of the form `!name=value`:

    !tokens=5 !delay=0.01 !wait=0.2    answer with five tokens, after 0.2 s, 0.01 s apart
    !crash=3  !hang=3  !cut=3          end the process, stop it, or cut the connection after three tokens
    !overflow  !status=500             refuse the prompt as too long, or with a status

and for the load by the "model", a small JSON file (`DummyModel`) that MODEL_PATH names; without one it loads at once. A
folder in the Hugging Face form, config.json and safetensors, gives it the shape of that model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from moorage_common.facts import CPU, EngineFacts, LoadError
from moorage_common.http.message import EVENT_STREAM, Answer, Request, json_answer
from moorage_common.shape import Shape
from moorage_common.tasks import Task
from moorage_runtime.engines.base import Announce, Announcement, Plan
from moorage_runtime.engines.dummy_answers import Answer as Made
from moorage_runtime.engines.dummy_answers import answer, embeddings, logprobs, orders, prompts_of, usage
from moorage_runtime.engines.loopback import Flow, listen
from moorage_runtime.errors import LoadFailure, context_exceeded, plain_engine_error
from moorage_runtime.hf_shape import hf_shape
from moorage_runtime.safetensors import SafetensorsError

if TYPE_CHECKING:
    from moorage_common.http.responder import Responder
    from moorage_runtime.settings import Settings

CONTEXT = 4096

ROUTES: Final = {
    Task.GENERATE: frozenset({"/v1/chat/completions", "/v1/completions"}),
    Task.EMBED: frozenset({"/v1/embeddings"}),
}

REFUSED: Final = frozenset(
    {"response_format", "json_schema", "grammar", "tools", "tool_choice", "parallel_tool_calls"}
    | {"dimensions", "truncate"}
)
"""What it does not do, and says so."""


class DummyModel(msgspec.Struct, frozen=True):
    """What the file says that stands in for a model."""

    load_seconds: float = 0.0
    failure: LoadError | None = None
    crash_file: str | None = None
    """While this file holds a number above 0, the load counts it down and ends the process."""
    loads_file: str | None = None
    """Each load adds a line to this file."""
    smoke_fails: bool = False
    context: int = CONTEXT
    shape: Shape | None = None
    device: str = CPU
    quantization: str | None = None
    memory_bytes: int | None = None


class _Config(msgspec.Struct, frozen=True):
    name: str
    model: DummyModel


class Dummy:
    """The engine `dummy`."""

    name = "dummy"
    environment: Mapping[str, str] = MappingProxyType({})

    def plan(self, settings: Settings) -> Plan:
        """Read the file that stands in for a model."""
        model = _model(settings.model_path) if settings.model_path is not None else DummyModel()
        if settings.max_input_tokens is not None:
            model = msgspec.structs.replace(model, context=settings.max_input_tokens)
        name = settings.model_name or "dummy"
        smoke = b'{"prompt": "!tokens=1"}' if not model.smoke_fails else b'{"prompt": "!status=500"}'
        embeds = settings.model_task is Task.EMBED
        return Plan(
            served_name=name,
            facts=EngineFacts(
                engine="dummy",
                quantization=model.quantization,
                context_length=model.context,
                weights_bytes=model.shape.stored_bytes if model.shape else 0,
            ),
            shape=model.shape,
            config=msgspec.json.encode(_Config(name=name, model=model)),
            smoke_path="/v1/embeddings" if embeds else "/v1/completions",
            smoke_body=b'{"input": "x"}' if embeds else smoke,
            probe_path="/probe",
            routes=ROUTES[settings.model_task],
            refused=REFUSED,
        )

    def preload(self) -> None:
        """Need nothing."""

    def serve(self, config: bytes, announce: Announce) -> None:
        """Load as the file says, then answer as the prompts say."""
        wanted = msgspec.json.decode(config, type=_Config)
        _load(wanted.model)
        asyncio.run(_serve(wanted, announce))

    def error(self, status: int, error: dict[str, Any]) -> Answer:
        """Do as llama.cpp's engine does."""
        if error.get("type") == "exceed_context_size_error":
            return context_exceeded(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
        return plain_engine_error(status, error)

    def log_line(self, line: str) -> tuple[int, str]:
        """Take every line as information."""
        return logging.INFO, line


def _model(path: Path) -> DummyModel:
    try:
        if path.is_dir():
            shape = hf_shape(path)
            return DummyModel(shape=shape, quantization=shape.quantization)
        return msgspec.json.decode(path.read_bytes(), type=DummyModel)
    except OSError as error:
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, SafetensorsError) as error:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{path}: {error}") from error


def _load(model: DummyModel) -> None:
    if model.loads_file is not None:
        with Path(model.loads_file).open("a") as file:
            file.write("loaded\n")
    if model.crash_file is not None:
        counter = Path(model.crash_file)
        left = int(counter.read_text())
        if left > 0:
            counter.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGABRT)
    if model.failure is not None:
        raise LoadFailure(model.failure, "the file that stands in for a model says that it cannot be loaded")


async def _serve(wanted: _Config, announce: Announce) -> None:
    await asyncio.sleep(wanted.model.load_seconds)
    service = _Service(wanted)
    server, port = await listen(service.handle)
    model = wanted.model
    announce(Announcement(port=port, version="1", device=model.device, memory_bytes=model.memory_bytes))
    await server.serve_forever()


class _Job(NamedTuple):
    """A request that is being answered."""

    body: dict[str, Any]
    chat: bool
    ordered: dict[str, str]
    answers: list[Made]
    usage: dict[str, int]


class _Service:
    def __init__(self, config: _Config) -> None:
        self._name = config.name
        self._context = config.model.context
        self._running = 0

    async def handle(self, request: Request, responder: Responder) -> None:
        if request.method == "GET":
            # A test asks here whether a request that a client left was dropped.
            responder.send(json_answer(200, {"running": self._running}))
            return
        self._running += 1
        try:
            await self._answer(request, responder)
        finally:
            self._running -= 1

    async def _answer(self, request: Request, responder: Responder) -> None:
        body = msgspec.json.decode(request.body)
        chat = request.path.endswith("/chat/completions")
        prompts = prompts_of(body, chat=chat)
        ordered = orders(prompts[-1])
        refusal = self._refusal(prompts, ordered)
        if refusal is not None:
            responder.send(refusal)
            return
        if request.path == "/v1/embeddings":
            responder.send(json_answer(200, {**embeddings(body, prompts), "model": self._name}))
            return
        await asyncio.sleep(float(ordered.get("wait", 0)))
        answers = [answer(body, ordered, index) for index in range(len(prompts) * (body.get("n") or 1))]
        job = _Job(body, chat, ordered, answers, usage(prompts, answers))
        if body.get("stream"):
            await self._stream(responder, job)
            return
        for number in range(max(len(one.pieces) for one in answers)):
            await _obey(ordered, number, responder)
        choices = [
            {
                "index": index,
                "finish_reason": one.finish,
                "logprobs": logprobs(one.pieces, body, chat=chat),
                **({"message": {"role": "assistant", "content": one.text}} if chat else {"text": one.text}),
            }
            for index, one in enumerate(answers)
        ]
        responder.send(json_answer(200, {**self._envelope(chat=chat), "choices": choices, "usage": job.usage}))

    def _refusal(self, prompts: list[list[str]], ordered: dict[str, str]) -> Answer | None:
        longest = max(map(len, prompts))
        if "overflow" in ordered or longest >= self._context:
            error = {"code": 400, "type": "exceed_context_size_error", "message": "too long"}
            count = 9000 if "overflow" in ordered else longest
            return json_answer(400, {"error": {**error, "n_prompt_tokens": count, "n_ctx": self._context}})
        if "status" in ordered:
            error = {"code": int(ordered["status"]), "message": "as ordered", "type": "server_error"}
            return json_answer(int(ordered["status"]), {"error": error})
        return None

    async def _stream(self, responder: Responder, job: _Job) -> None:
        source = Flow()
        responder.start(200, EVENT_STREAM, flow=source)
        longest = max(len(one.pieces) for one in job.answers)
        for number in range(longest):
            await _obey(job.ordered, number, responder)
            await source.open.wait()
            for index, one in enumerate(job.answers):
                if number < len(one.pieces):
                    self._event(responder, job, index, one.pieces[number])
        await _obey(job.ordered, longest, responder)
        for index, one in enumerate(job.answers):
            self._event(responder, job, index, None, finish=one.finish)
        if (job.body.get("stream_options") or {}).get("include_usage"):
            self._write(responder, {**self._envelope(chat=job.chat, chunk=job.chat), "choices": [], "usage": job.usage})
        responder.write(b"data: [DONE]\n\n")
        responder.finish()

    def _event(
        self, responder: Responder, job: _Job, index: int, piece: str | None, *, finish: str | None = None
    ) -> None:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        choice |= {"delta": {} if piece is None else {"content": piece}} if job.chat else {"text": piece or ""}
        if piece is not None:
            choice["logprobs"] = logprobs((piece,), job.body, chat=job.chat)
        event = {**self._envelope(chat=job.chat, chunk=job.chat), "choices": [choice]}
        if finish is not None:
            event["timings"] = {"predicted_n": job.usage["completion_tokens"]}
        self._write(responder, event)

    def _write(self, responder: Responder, event: dict[str, Any]) -> None:
        responder.write(b"data: " + msgspec.json.encode(event) + b"\n\n")

    def _envelope(self, *, chat: bool, chunk: bool = False) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if chat else "text_completion"
        return {"id": "dummy-1", "object": kind, "created": 0, "model": self._name}


async def _obey(orders: dict[str, str], number: int, responder: Responder) -> None:
    """Do what is ordered to happen before token `number`."""
    if number and "delay" in orders:
        await asyncio.sleep(float(orders["delay"]))
    at = str(number)
    if orders.get("crash") == at:
        os.kill(os.getpid(), signal.SIGSEGV)
    if orders.get("hang") == at:
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.sleep(0)
    if orders.get("cut") == at:
        responder.break_off()
        raise asyncio.CancelledError


ENGINE = Dummy()
