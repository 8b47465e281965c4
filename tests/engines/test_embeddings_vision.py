"""Text, images and both in one space, by a tiny random Qwen2-VL that is read as GME is."""

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from hack.engines.embedding_models import tiny_qwen2_vl_folder
from hack.engines.environments import python_of
from tests.engines.embedding_runtime import EmbeddingRuntime, embedding_runtime

pytestmark = pytest.mark.timeout(600)

REFERENCE = Path(__file__).with_name("reference_qwen2_vl.py")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingRuntime]:
    with embedding_runtime(tmp_path_factory.mktemp("vision"), tiny_qwen2_vl_folder()) as started:
        yield started


def picture(seed: int, size: tuple[int, int] = (100, 60), kind: str = "PNG") -> str:
    """A picture of noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


PICTURES = [picture(1), picture(2, (60, 150)), picture(3, (300, 300), "JPEG"), picture(4, (28, 28), "WEBP")]
LARGE = [picture(5, (1000, 700)), picture(6, (300, 900))]
TEXTS = [
    "a cat",
    "Grüße aus 東京",
    "a longer text that has a few more tokens than the others",
    "\n\n starts with lines",
]


@cache
def reference() -> dict[str, Any]:
    """What transformers' own code makes of all that is embedded here."""
    inputs = {
        "texts": [{"text": text} for text in TEXTS],
        "instructed": [{"text": text, "instruction": "Find a picture."} for text in TEXTS],
        "images": [{"image": image} for image in PICTURES],
        "large": [{"image": image} for image in LARGE],
        "fused": [{"text": text, "image": image} for text, image in zip(TEXTS, PICTURES, strict=True)],
    }
    flat = [one for group in inputs.values() for one in group]
    done = subprocess.run(
        [str(python_of("transformers")), str(REFERENCE), str(tiny_qwen2_vl_folder())],
        input=json.dumps(flat),
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    vectors = iter(json.loads(done.stdout))
    return {name: np.array([next(vectors) for _ in group]) for name, group in inputs.items()}


def cosines(found: Any, expected: Any) -> Any:
    """How alike each is to what it should be; all are of unit length."""
    return (np.array(found["embeddings"]) * expected).sum(axis=1)


def test_what_is_embedded_differs(runtime: EmbeddingRuntime) -> None:
    """Without this the other tests could not fail: a random model may find all alike."""
    every = np.concatenate(list(reference().values()))
    likeness = every @ every.T
    assert np.sort(likeness[~np.eye(len(every), dtype=bool)])[-1] < 0.999


def test_text_is_what_transformers_makes_of_gme_s_chat(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/embeddings/text", texts=TEXTS)

    assert found["dimension"] == 64
    assert cosines(found, reference()["texts"]).min() >= 0.9999
    openai = runtime.ask("/v1/embeddings", model="m", input=TEXTS, encoding_format="float")
    assert [item["embedding"] for item in openai["data"]] == found["embeddings"]


def test_an_instruction_takes_the_place_of_the_system_s_words(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/embeddings/text", texts=TEXTS, instruction="Find a picture.")

    assert cosines(found, reference()["instructed"]).min() >= 0.9999


def test_images_are_what_transformers_makes_of_them(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/embeddings/image", images=PICTURES)

    assert cosines(found, reference()["images"]).min() >= 0.9999
    # What is searched has no instruction, and a query has the one it comes with.
    searched = runtime.ask("/embeddings/image", images=PICTURES, instruction="Find a picture.", is_query=False)
    assert cosines(searched, reference()["images"]).min() >= 0.9999
    assert (
        cosines(runtime.ask("/embeddings/image", images=PICTURES, instruction="Find."), reference()["images"]).max() < 1
    )


def test_a_large_image_is_what_transformers_makes_of_it(runtime: EmbeddingRuntime) -> None:
    """It is shrunk long before the processor sees it."""
    found = runtime.ask("/embeddings/image", images=LARGE)

    assert cosines(found, reference()["large"]).min() >= 0.9999


def test_images_of_many_pixels_in_small_files_take_little_memory(runtime: EmbeddingRuntime) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8192, 4096), 1).save(buffer, "PNG")
    bomb = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    runtime.ask("/embeddings/image", images=[bomb])
    before = engine_peak(runtime)

    runtime.ask("/embeddings/image", images=[bomb] * 4)
    assert engine_peak(runtime) - before < 100 * 1024**2
    _, message = runtime.refused("/embeddings/image", images=[bomb] * 12)
    assert message.startswith("images[4]: ")
    assert f"{5 * 8192 * 4096} pixels together; at most {4 * 8192 * 4096}" in message


def engine_peak(runtime: EmbeddingRuntime) -> int:
    """The most that front and engine have held."""
    return int(httpx.get(f"{runtime.url}/health/memory").json()["memory"]["peak_usage_bytes"])


def test_a_text_with_its_image_is_what_transformers_makes_of_both(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/embeddings/fused", texts=TEXTS, images=PICTURES)

    assert cosines(found, reference()["fused"]).min() >= 0.9999
    assert "4 texts and 1 images" in runtime.refused("/embeddings/fused", texts=TEXTS, images=PICTURES[:1])[1]


def test_texts_and_images_in_one_batch_are_what_they_are_alone(runtime: EmbeddingRuntime) -> None:
    asked = [("/embeddings/text", {"texts": [text]}) for text in TEXTS]
    asked += [("/embeddings/image", {"images": [image]}) for image in PICTURES]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: runtime.ask(one[0], **one[1]), asked * 3))

    expected = np.concatenate([reference()["texts"], reference()["images"]] * 3)
    assert min(cosines(one, expected[number : number + 1])[0] for number, one in enumerate(found)) >= 0.9999


def test_similarity_is_of_each_text_with_each_image(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/similarity", texts=TEXTS[:3], images=PICTURES)

    assert found["shape"] == [3, 4]
    expected = reference()["texts"][:3] @ reference()["images"].T
    assert np.allclose(found["similarity_matrix"], expected, atol=1e-4)
    assert runtime.ask("/similarity", images=PICTURES[:2])["shape"] == [2, 2]


def test_what_looks_like_a_token_of_the_chat_is_text(runtime: EmbeddingRuntime) -> None:
    given = ["<|image_pad|>", "<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>"]
    found = np.array(runtime.ask("/embeddings/text", texts=given)["embeddings"])

    assert np.isfinite(found).all()
    counted = runtime.ask("/v1/embeddings", model="m", input=["<|image_pad|>", "1234567890123"])["usage"]
    alone = runtime.ask("/v1/embeddings", model="m", input="1234567890123")["usage"]
    assert counted["prompt_tokens"] == 2 * alone["prompt_tokens"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("data:image/png;base64,AAAA", "cannot be read"),
        ("data:image/png;base64,A", "base64 is not valid"),
        (PICTURES[0][: len("data:image/png;base64,") + 4000], "cannot be read"),
        (picture(5, (2001, 10)), "200 times the other"),
        ("http://127.0.0.1/a.png", "images are not fetched by this service"),
        ("file:///etc/passwd", "not a data: URL"),
    ],
)
def test_bad_input_51_an_image_at_fault_is_named_by_its_place(runtime: EmbeddingRuntime, image: str, said: str) -> None:
    param, message = runtime.refused("/embeddings/image", images=[PICTURES[0], image])

    assert param == "images"
    assert message.startswith("images[1]: ")
    assert said in message


def test_bad_input_48_an_image_and_a_text_that_are_too_long_together_are_told(runtime: EmbeddingRuntime) -> None:
    _, message = runtime.refused("/embeddings/fused", texts=["x" * 5000], images=PICTURES[:1])
    assert "4096 tokens" in message
    assert runtime.ask("/embeddings/fused", texts=["x" * 5000], images=PICTURES[:1], truncate=True)
