"""What cannot fit is refused before the queue, and nothing that might fit."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from moorage_common.http.message import Refusal
from moorage_runtime.gguf import read_header
from moorage_runtime.lengths import refuse_too_long
from moorage_runtime.vocabulary import longest_token
from tests.unit.runtime.hf_folder import folder
from tests.unit.runtime.support import LLAMA, array, gguf, running, string, text, until
from tests.unit.runtime.test_hf_shape import LLAMA_3_8B

CONTEXT, LONGEST = 10, 4


def refused(value: object, *, longest: int | None = LONGEST, ascii_only: bool = True) -> str | None:
    """The words of the refusal, or None."""
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    try:
        refuse_too_long(raw, CONTEXT, longest)
    except Refusal as refusal:
        error = json.loads(refusal.answer.body)["error"]
        assert (refusal.answer.status, error["code"]) == (400, "context_length_exceeded")
        assert "10 tokens" in error["message"]
        return str(error["message"])
    return None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 41, "at least 11"),
        ("x" * 40, None),  # ten tokens of four bytes each would do
        (["x" * 40, "y" * 40], None),  # each is a prompt of its own
        (["x", "y" * 41], "at least 11"),
        ([1] * 11, "has 11"),
        ([1] * 10, None),
        ([[1] * 10, [1] * 10], None),
        ([[1], [1] * 12], "has 12"),
        ([{"role": "user", "content": "x" * 41}], "at least 11"),
        ([{"role": "user", "content": [{"type": "text", "text": "x" * 21}] * 2}], "at least 11"),
        ([{"role": "user", "content": "x" * 20}, {"role": "user", "content": "x" * 21}], "at least 11"),
        ([{"role": "user", "content": " " * 400}], None),  # a template may trim it
        ([{"role": "assistant", "content": "x" * 400}], "at least 100"),
        ([{"role": "system", "content": "x" * 20}, {"role": "tool", "content": "x" * 21}], "at least 11"),
        ([{"role": "system", "content": "x" * 20}, {"role": "user", "content": "x" * 20}], None),
        ([{"role": "assistant", "content": None, "tool_calls": [{"a": "x" * 400}]}], None),
    ],
)
def test_bad_input_48_only_what_cannot_fit_is_refused(value: object, said: str | None) -> None:
    found = refused(value)

    assert (found is None) if said is None else said in (found or "")


def test_escapes_are_not_counted() -> None:
    assert refused("\n" * 40) is None  # two bytes each, as JSON
    assert refused("é" * 20) is None  # six bytes each, as JSON
    assert refused("é" * 21, ascii_only=False) is not None


def test_without_a_vocabulary_only_token_numbers_are_counted() -> None:
    assert refused("x" * 10_000, longest=None) is None
    assert refused([1] * 11, longest=None) is not None


@pytest.mark.parametrize(("kind", "longest"), [("gpt2", 7), ("llama", 7), ("bert", None), (None, None)])
def test_a_gguf_file_tells_its_longest_token(tmp_path: Path, kind: str | None, longest: int | None) -> None:
    tokens = array("tokenizer.ggml.tokens", 8, [text("a"), text("abcdefg"), text("é")])
    merges = array("tokenizer.ggml.merges", 8, [text("much longer than any token")])
    said = () if kind is None else (string("tokenizer.ggml.model", kind),)
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([*LLAMA, tokens, merges, *said]))

    assert read_header(path).longest_token == longest


BYTES = {"type": "ByteLevel"}


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, 12),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, BYTES]}}, 12),
        ({"added_tokens": []}, 4),
        ({"normalizer": {"type": "NFKC"}}, None),
        ({"pre_tokenizer": None}, None),
        ({"pre_tokenizer": {"type": "Whitespace"}}, None),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"behavior": "Removed"}, BYTES]}}, None),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, None),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.5]]}}, None),
        ({"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}, None),
        ({"model": 5}, None),
    ],
)
def test_a_tokenizer_tells_its_longest_token_where_that_is_certain(
    tmp_path: Path, changes: dict[str, Any], longest: int | None
) -> None:
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "abcd": 1}},
        "added_tokens": [{"content": "<|im_start|>", "id": 2}],
        "pre_tokenizer": BYTES,
        **changes,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))

    assert longest_token(tmp_path) == longest


def test_no_tokenizer_tells_nothing(tmp_path: Path) -> None:
    assert longest_token(None) is None
    assert longest_token(tmp_path) is None
    (tmp_path / "tokenizer.json").write_bytes(b"{")
    assert longest_token(tmp_path) is None


async def test_bad_input_48_a_million_tokens_are_refused_before_the_queue(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", LLAMA_3_8B)
    tokenizer = {"model": {"type": "BPE", "vocab": {"token": 0}}, "pre_tokenizer": BYTES}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    async with running(model_path=model, max_concurrent_requests=1, max_queued_requests=0) as runtime:
        busy = asyncio.create_task(runtime.chat("!wait=0.5 !tokens=1"))
        await until(lambda: runtime.server.service.admission.running == 1)

        answer = await runtime.chat("a " * 1_000_000)

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "4096 tokens" in answer.json()["error"]["message"]
        assert (await busy).status_code == 200
