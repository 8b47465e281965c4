"""llama.cpp by llama-cpp-python, in the child: our own small server, because the package's own breaks off streams.

The binding computes for one caller at a time. So one thread generates, and requests stand in a queue in the order in
which they came; a client that leaves ends its generation before the next token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from moorage_common.http.message import EVENT_STREAM, Request, json_answer
from moorage_runtime.engines.base import Announce, Announcement
from moorage_runtime.engines.llamacpp_binding import Model, Overflow, Piece
from moorage_runtime.engines.loopback import Flow, listen

if TYPE_CHECKING:
    from moorage_common.http.responder import Responder
    from moorage_runtime.engines.llamacpp import ChildConfig

REFUSED: Final = frozenset(
    {
        *("response_format", "json_schema", "grammar", "tools", "tool_choice", "parallel_tool_calls"),
        *("logprobs", "top_logprobs", "n_probs", "logit_bias"),
    }
)
"""Fields of requests that this driver has not."""


def serve(config: ChildConfig, announce: Announce) -> None:
    """Load the model, announce a port, and answer until the process ends."""
    model = Model(config)
    found = Announcement(version=model.version, device=model.device)
    asyncio.run(_listen(_Service(model, config.alias), announce, found))


async def _listen(service: _Service, announce: Announce, found: Announcement) -> None:
    server, port = await listen(service.handle)
    announce(msgspec.structs.replace(found, port=port))
    await server.serve_forever()


class _Job(NamedTuple):
    """A request for text: the tokens of each prompt, and what is asked of each."""

    body: dict[str, Any]
    chat: bool
    prompts: list[list[int]]

    def answers(self) -> Iterator[tuple[int, list[int]]]:
        """Give each answer's number and prompt."""
        count = self.body.get("n") or 1
        yield from enumerate(prompt for prompt in self.prompts for _ in range(count))

    def usage(self, made: int) -> dict[str, int]:
        """Count tokens."""
        asked = sum(map(len, self.prompts))
        return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


class _Service:
    def __init__(self, model: Model, name: str) -> None:
        self._model = model
        self._name = name
        self._turn = asyncio.Lock()  # it lets in whoever has waited longest
        self._thread = ThreadPoolExecutor(1)
        self._number = 0

    async def handle(self, request: Request, responder: Responder) -> None:
        if request.method == "GET":
            # The probe: answered by the loop that hands out the work.
            responder.send(json_answer(200, {"busy": self._turn.locked()}))
            return
        body = msgspec.json.decode(request.body)
        try:
            await self._write(body, responder, chat=request.path.endswith("/chat/completions"))
        except Overflow as overflow:
            error = {"code": 400, "type": "exceed_context_size_error", "message": "the prompt is too long"}
            numbers = {"n_prompt_tokens": overflow.tokens, "n_ctx": overflow.context}
            responder.send(json_answer(400, {"error": {**error, **numbers}}))
        except ValueError as error:
            # A template may refuse a conversation.
            responder.send(json_answer(400, {"error": {"message": str(error), "type": "invalid_request_error"}}))

    async def _write(self, body: dict[str, Any], responder: Responder, *, chat: bool) -> None:
        prompts = [self._model.chat(body["messages"])] if chat else self._model.inputs(body["prompt"])
        self._model.check(prompts)
        job = _Job(body, chat, prompts)
        async with self._turn:
            if body.get("stream"):
                await self._stream(job, responder)
            else:
                await self._whole(job, responder)

    async def _whole(self, job: _Job, responder: Responder) -> None:
        choices, made = [], 0
        for index, prompt in job.answers():
            text, finish = "", None
            async with aclosing(self._generate(job, index, prompt)) as pieces:
                async for piece in pieces:
                    text, finish, made = text + piece.text, piece.finish, made + piece.tokens
            said = {"message": {"role": "assistant", "content": text}} if job.chat else {"text": text}
            choices.append({"index": index, "finish_reason": finish, "logprobs": None, **said})
        kind = "chat.completion" if job.chat else "text_completion"
        responder.send(json_answer(200, {**self._envelope(kind), "choices": choices, "usage": job.usage(made)}))

    async def _stream(self, job: _Job, responder: Responder) -> None:
        envelope, made, flow = self._envelope("chat.completion.chunk" if job.chat else "text_completion"), 0, Flow()
        responder.start(200, EVENT_STREAM, flow=flow)

        def event(**fields: Any) -> None:
            responder.write(b"data: " + msgspec.json.encode({**envelope, **fields}) + b"\n\n")

        for index, prompt in job.answers():
            if job.chat:
                event(choices=[{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            async with aclosing(self._generate(job, index, prompt)) as pieces:
                async for piece in pieces:
                    await flow.open.wait()
                    made += piece.tokens
                    if piece.text:
                        said = {"delta": {"content": piece.text}} if job.chat else {"text": piece.text}
                        event(choices=[{"index": index, **said, "finish_reason": None}])
                    if piece.finish is not None:
                        end: dict[str, Any] = {"delta": {}} if job.chat else {"text": ""}
                        event(choices=[{"index": index, **end, "finish_reason": piece.finish}])
        if (job.body.get("stream_options") or {}).get("include_usage"):
            event(choices=[], usage=job.usage(made))
        responder.write(b"data: [DONE]\n\n")
        responder.finish()

    async def _generate(self, job: _Job, index: int, prompt: list[int]) -> AsyncGenerator[Piece, None]:
        """Give the pieces of an answer, one step of the thread each; who stops asking stops the generation."""
        steps = self._model.generate(prompt, job.body, index)
        while (piece := await self._run(next, steps, None)) is not None:
            yield piece

    async def _run(self, function: Any, *arguments: Any) -> Any:
        """Run a step on the thread; one that nobody waits for any more is waited for all the same."""
        step = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            raise

    def _envelope(self, kind: str) -> dict[str, Any]:
        self._number += 1
        return {"id": f"cmpl-{self._number}", "object": kind, "created": 0, "model": self._name}
