"""The child's routes with a model that computes nothing: what happens to images on their way to it."""

import asyncio
import base64
import io
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from moorage_runtime.embedding import images, service
from moorage_runtime.embedding.batching import Batcher
from moorage_runtime.embedding.config import ChildConfig, Input, Prepared
from moorage_runtime.embedding.service import Service
from moorage_runtime.engines.loopback import listen


class FakeModel:
    """Looks at every image as 10 x 10 pixels."""

    dimension = 2
    device = "cpu"
    padded = True
    sees = True

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        return 10, 10

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        self.sizes += [one.image.size for one in inputs if one.image is not None]
        return [Prepared(np.zeros(3, dtype=np.int64)) for _ in inputs]

    def compute(self, prepared: Sequence[Prepared]) -> Sequence[Any]:
        return [np.ones(2, dtype=np.float32) for _ in prepared]

    def memory_bytes(self) -> int | None:
        return None


@asynccontextmanager
async def serving(model: FakeModel, *hosts: str) -> AsyncIterator[httpx.AsyncClient]:
    def broken(error: BaseException) -> None:
        raise error

    batcher = Batcher(model.compute, broken=broken)
    batcher.start()
    config = ChildConfig(path="", name="m", kind="vision", max_tokens=100, threads=1, image_url_hosts=hosts)
    server, port = await listen(Service(model, batcher, config).handle)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        server.close()
        batcher.close()


def picture(width: int, height: int, kind: str = "PNG", mode: str = "1") -> str:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 1).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def refused(client: httpx.AsyncClient, *urls: str) -> str:
    answer = await client.post("/embeddings/image", json={"images": urls})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["message"])


async def test_one_image_at_a_time_has_its_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)
    decode = images.from_data_url

    def watched(*given: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            both.wait(0.05)  # another that came in meanwhile would be here too
        except threading.BrokenBarrierError:
            both.reset()
        try:
            return decode(*given)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(service, "from_data_url", watched)
    model = FakeModel()
    async with serving(model) as client:
        asked = {"images": [picture(300, 200), picture(100, 400, "JPEG", "RGB")]}
        answers = await asyncio.gather(*(client.post("/embeddings/image", json=asked) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [200] * 3
    assert most == 1
    assert model.sizes == [(10, 10)] * 6


async def test_bad_input_51_the_pixels_of_a_request_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_REQUEST_PIXELS", 250)
    async with serving(FakeModel()) as client:
        said = await refused(client, *[picture(10, 10)] * 4)
        fits = await client.post("/embeddings/image", json={"images": [picture(10, 10)] * 2})
        again = await client.post("/similarity", json={"images": [picture(10, 10)] * 2})

    assert said.startswith("images[2]: ")
    assert "300 pixels together; at most 250" in said
    assert (fits.status_code, again.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("url", "hosts", "said"),
    [
        ("file:///etc/passwd", (), "images are not fetched by this service"),
        ("http://a.example/x.png", (), "images are not fetched by this service"),
        ("file:///etc/passwd", ("a.example",), "it is neither a data: URL nor an http or https URL"),
        ("http://b.example/x.png", ("a.example",), "images are not fetched from 'b.example'"),
    ],
)
async def test_bad_input_51_a_url_is_refused_in_words_that_are_true(
    url: str, hosts: tuple[str, ...], said: str
) -> None:
    async with serving(FakeModel(), *hosts) as client:
        message = await refused(client, url)

    assert message.startswith("images[0]: ")
    assert said in message
    assert ("not fetched by this service" in message) == (not hosts)
