"""The routes of an embedding model's child: what a request asks for becomes inputs, and vectors become its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import numpy as np

from moorage_common.http.message import Answer, Refusal, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.openai_errors import error_body
from moorage_runtime.embedding.answers import (
    MAX_BYTES,
    answer_bytes,
    as_base64,
    as_floats,
    as_list,
    vectors_json,
)
from moorage_runtime.embedding.batching import Batcher, ItemFailed, QueueFull
from moorage_runtime.embedding.config import ChildConfig, EmbeddingModel, Input, InvalidInput, Prepared, TooLong
from moorage_runtime.embedding.fetch import fetch
from moorage_runtime.embedding.images import Intake, from_bytes, from_data_url

INLINE_CHARACTERS: Final = 4096
"""Texts up to so long together are tokenized at once: that takes less time than the way to another thread."""


class OpenAIRequest(msgspec.Struct):
    """The body of /v1/embeddings."""

    input: str | list[str | int | list[int]]
    encoding_format: str = "float"
    dimensions: int | None = None
    truncate: bool = False


class SpaceRequest(msgspec.Struct):
    """The body of the other routes; the front has checked which fields each has."""

    texts: list[str] = []
    images: list[str] = []
    instruction: str | None = None
    is_query: bool = True
    truncate: bool = False


class Service:
    """What a request needs: the model, its batcher, and threads that prepare."""

    def __init__(self, model: EmbeddingModel, batcher: Batcher, config: ChildConfig) -> None:
        """Serve `model` through `batcher`."""
        self._model = model
        self._batcher = batcher
        self._config = config
        self._threads = ThreadPoolExecutor(2, "prepare")
        self._decoding = asyncio.Lock()
        """Held while an image has its full size: of all requests one at a time has it."""
        self._requests = 0
        self._routes: dict[str, Callable[[bytes], Awaitable[Answer]]] = {
            "/v1/embeddings": self._openai,
            "/embeddings/text": self._texts,
            "/embeddings/image": self._space,
            "/embeddings/fused": self._space,
            "/similarity": self._similarity,
        }

    async def handle(self, request: Request, responder: Responder) -> None:
        """Answer a request of the front."""
        if request.path == "/probe":
            await self._batcher.idle_turn()
            responder.send(json_answer(200, {}))
        elif request.path == "/stats":
            responder.send(json_answer(200, self.stats()))
        elif request.path in self._routes:
            self._requests += 1
            try:
                responder.send(await self._routes[request.path](request.body))
            finally:
                self._requests -= 1
        else:
            responder.send(Answer(404, error_body(f"There is no {request.path} here.")))

    def stats(self) -> dict[str, Any]:
        """Sum up what the batcher has done."""
        stats = self._batcher.stats
        items, tokens = self._batcher.waiting
        computed = stats.tokens + stats.padding_tokens
        return {
            "batches": stats.batches,
            "items": stats.items,
            "mean_batch_size": round(stats.items / stats.batches, 3) if stats.batches else 0.0,
            "tokens": stats.tokens,
            "padding_share": round(stats.padding_tokens / computed, 4) if computed else 0.0,
            "failed_items": stats.failed_items,
            "retried_batches": stats.retried_batches,
            "busy_seconds": round(stats.busy_seconds, 3),
            "queue": {"items": items, "tokens": tokens},
            "requests": self._requests,
            "max_batch_size": self._config.batch_size,
            "padded": self._model.padded,
        }

    # -- routes -------------------------------------------------------------------------------------------------------

    async def _openai(self, body: bytes) -> Answer:
        asked = msgspec.json.decode(body, type=OpenAIRequest)
        inputs = [_openai_input(one, truncate=asked.truncate) for one in _openai_items(asked.input)]
        base64, dimension = asked.encoding_format == "base64", self._dimension(asked.dimensions)
        _check_size(answer_bytes(len(inputs), dimension, base64=base64), "input")
        vectors, tokens = await self._embed(inputs, "input")
        if dimension < self._model.dimension:
            vectors = [unit(vector[:dimension]) for vector in vectors]
        data = await vectors_json(vectors, as_base64 if base64 else as_floats)
        head = b'{"object":"list","model":%b,"data":' % msgspec.json.encode(self._config.name)
        usage = b',"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (tokens, tokens)
        return Answer(200, head + data + usage)

    async def _texts(self, body: bytes) -> Answer:
        asked = msgspec.json.decode(body, type=SpaceRequest)
        return await self._vectors(asked, [Input(text=text) for text in asked.texts], "texts")

    async def _space(self, body: bytes) -> Answer:
        """Embed images, each with its text where there are texts."""
        asked = msgspec.json.decode(body, type=SpaceRequest)
        texts: Sequence[str | None] = asked.texts or [None] * len(asked.images)
        if len(texts) != len(asked.images):
            message = f"There are {len(texts)} texts and {len(asked.images)} images; each text goes with one image."
            raise Refusal(Answer(400, error_body(message, param="images")))
        images = await self._load(asked.images)
        inputs = [Input(text=text, image=image) for text, image in zip(texts, images, strict=True)]
        return await self._vectors(asked, inputs, "images")

    async def _vectors(self, asked: SpaceRequest, inputs: Sequence[Input], name: str) -> Answer:
        _check_size(answer_bytes(len(inputs), self._model.dimension, base64=False), name)
        vectors, _ = await self._embed(self._instructed(asked, inputs), name)
        data = await vectors_json(vectors, as_list)
        return Answer(200, b'{"embeddings":%b,"dimension":%d}' % (data, self._model.dimension))

    async def _similarity(self, body: bytes) -> Answer:
        """Compare texts with images, or what there is with itself."""
        asked = msgspec.json.decode(body, type=SpaceRequest)
        texts = [Input(text=text) for text in asked.texts]
        across = len(asked.images) or len(texts)
        _check_size(answer_bytes(len(texts) or across, across, base64=False), "texts" if texts else "images")
        images = [Input(image=image) for image in await self._load(asked.images)]
        text_vectors, _ = await self._embed(self._instructed(asked, texts), "texts") if texts else ([], 0)
        image_vectors, _ = await self._embed(images, "images") if images else ([], 0)
        loop = asyncio.get_running_loop()
        matrix = await loop.run_in_executor(
            self._threads, similarity, text_vectors or image_vectors, image_vectors or text_vectors
        )
        rows = await vectors_json(list(matrix), as_list)
        return Answer(200, b'{"similarity_matrix":%b,"shape":[%d,%d]}' % (rows, *matrix.shape))

    # -- steps --------------------------------------------------------------------------------------------------------

    def _instructed(self, asked: SpaceRequest, inputs: Sequence[Input]) -> Sequence[Input]:
        """Give queries their instruction; what is searched has none, and neither has it one here."""
        for one in inputs:
            one.instruction = asked.instruction if asked.is_query else None
            one.truncate = asked.truncate
        return inputs

    async def _embed(self, inputs: Sequence[Input], name: str) -> tuple[list[Any], int]:
        """Give the vectors of inputs and the number of their tokens; raise Refusal that names the item at fault."""
        try:
            prepared = await self._prepare(inputs)
        except InvalidInput as invalid:
            raise _refusal(invalid, name) from invalid
        lengths = [len(one.ids) for one in prepared]
        try:
            return await self._batcher.embed(prepared, lengths), sum(lengths)
        except QueueFull as full:
            body = error_body(str(full), kind="rate_limit_error", code="queue_full")
            raise Refusal(Answer(429, body)) from full
        except ItemFailed as failed:
            message = f"{name}[{failed.index}] could not be embedded: {failed}."
            raise Refusal(Answer(500, error_body(message, kind="server_error", param=name))) from failed

    async def _prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        size = sum(len(one.text or "") if one.image is None else INLINE_CHARACTERS + 1 for one in inputs)
        if size <= INLINE_CHARACTERS:
            return self._model.prepare(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._model.prepare, inputs)

    async def _load(self, urls: Sequence[str]) -> list[Any]:
        """Give the images of a request, each decoded and shrunk before the next: together they may take much."""
        found, intake = [], Intake(self._model.scaled)
        for index, url in enumerate(urls):
            try:
                found.append(await self._image(url, intake))
            except InvalidInput as invalid:
                invalid.index = index
                raise _refusal(invalid, "images") from invalid
        return found

    async def _image(self, url: str, intake: Intake) -> Any:
        hosts = self._config.image_url_hosts
        if url[:5].lower() == "data:":
            return await self._decoded(from_data_url, url, intake)
        if not hosts:
            raise InvalidInput("it is not a data: URL; images are not fetched by this service")
        if not url[:8].lower().startswith(("http://", "https://")):
            raise InvalidInput("it is neither a data: URL nor an http or https URL")
        return await self._decoded(from_bytes, await fetch(url, hosts), intake)

    async def _decoded(self, decode: Callable[[Any, Intake], Any], given: Any, intake: Intake) -> Any:
        async with self._decoding:
            return await asyncio.get_running_loop().run_in_executor(self._threads, decode, given, intake)

    def _dimension(self, asked: int | None) -> int:
        full = self._model.dimension
        if asked is None or asked == full:
            return full
        if asked > full or not self._config.matryoshka:
            why = f"at most {full}" if asked > full else f"{full}: the model's files do not say that it can be cut"
            message = f'"dimensions": {asked} is asked for, and the model\'s vectors have {why}.'
            raise Refusal(Answer(400, error_body(message, param="dimensions")))
        return asked


def unit(vector: Any) -> Any:
    """Give a vector the length 1."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def similarity(left: Sequence[Any], right: Sequence[Any]) -> Any:
    """Give the cosine of each on the left with each on the right."""
    rows = np.stack([unit(vector) for vector in left])
    columns = rows if right is left else np.stack([unit(vector) for vector in right])
    return np.clip(rows @ columns.T, -1.0, 1.0)


def _openai_items(given: str | list[str | int | list[int]]) -> list[Any]:
    if isinstance(given, str) or isinstance(given[0], int):
        return [given]
    return given


def _openai_input(one: Any, *, truncate: bool) -> Input:
    return Input(text=one, truncate=truncate) if isinstance(one, str) else Input(tokens=one, truncate=truncate)


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        message = f"The answer could have {size} bytes, and at most {MAX_BYTES} are sent: ask for less at once."
        raise Refusal(Answer(400, error_body(message, param=name)))


def _refusal(invalid: InvalidInput, name: str) -> Refusal:
    """Say which item is at fault and why."""
    if isinstance(invalid, TooLong):
        message = (
            f"This model's context length is {invalid.limit} tokens, and the prompt has {invalid.tokens}: "
            f'{name}[{invalid.index}]. Shorten it, or ask for "truncate": true.'
        )
        return Refusal(Answer(400, error_body(message, param=name, code="context_length_exceeded")))
    return Refusal(Answer(400, error_body(f"{name}[{invalid.index}]: {invalid}.", param=name)))
