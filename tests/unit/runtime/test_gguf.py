"""The header of GGUF files: what is read, and that nothing wrong passes or takes long."""

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_runtime.gguf import MAX_KEPT, Header, read_header
from moorage_runtime.gguf_cursor import MAX_STRINGS, GGUFError
from tests.unit.runtime.support import LLAMA, array, entry, gguf, number, string, tensor, text

MANY = 2**60


def read(folder: Path, content: bytes, name: str = "model.gguf") -> Header:
    path = folder / name
    path.write_bytes(content)
    return read_header(path)


def test_reads_what_the_engine_needs(tmp_path: Path) -> None:
    header = read(tmp_path, gguf())

    assert (header.architecture, header.file_type, header.context_length) == ("llama", "Q4_K_M", 2048)
    assert header.tensor_bytes == 32 * 2 * 4


def test_counts_blocks_of_quantized_tensors(tmp_path: Path) -> None:
    header = read(tmp_path, gguf(tensors=[tensor("q", [256, 3], kind=12), tensor("f", [8], 1, 448)], data=512))

    assert header.tensor_bytes == 3 * 144 + 16


def test_steps_over_a_vocabulary_longer_than_the_buffer(tmp_path: Path) -> None:
    words = [text("token" * (n % 40)) for n in range(30_000)]
    entries = [*LLAMA, array("tokenizer.ggml.tokens", 8, words), number("llama.vocab_size", 7)]

    header = read(tmp_path, gguf(entries))

    assert header.number("vocab_size") == 7
    assert "tokenizer.ggml.tokens" not in header.entries


def test_keeps_short_arrays_and_steps_over_long_ones(tmp_path: Path) -> None:
    short = array("llama.attention.sliding_window_pattern", 7, [b"\1", b"\0"])
    long = array("tokenizer.ggml.scores", 6, [bytes(4)] * 400_000)

    header = read(tmp_path, gguf([*LLAMA, short, long, number("llama.vocab_size", 7)]))

    assert header.entries["llama.attention.sliding_window_pattern"] == [True, False]
    assert "tokenizer.ggml.scores" not in header.entries
    assert header.number("vocab_size") == 7


def test_a_large_vocabulary_with_its_merges_is_read(tmp_path: Path) -> None:
    tokens = array("tokenizer.ggml.tokens", 8, [text(f"token{n}") for n in range(262_144)])
    merges = array("tokenizer.ggml.merges", 8, [text("a b")] * 520_000)

    header = read(tmp_path, gguf([*LLAMA, tokens, merges, string("tokenizer.ggml.model", "gpt2")]))

    assert header.longest_token == len("token262143")


def test_long_entries_that_nobody_asks_for_take_no_memory(tmp_path: Path) -> None:
    size = 12 * 1024 * 1024
    with (tmp_path / "model.gguf").open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(LLAMA) + 39) + b"".join(LLAMA))
        for n in range(39):
            file.write(entry(f"general.note.{n}", 8, struct.pack("<Q", size)))
            file.seek(size, os.SEEK_CUR)
        file.truncate()
    tracemalloc.start()
    header = read_header(tmp_path / "model.gguf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.architecture == "llama"
    assert peak < size


def test_what_is_kept_has_a_bound(tmp_path: Path) -> None:
    templates = [string(f"tokenizer.chat_template.{n}", "x" * (MAX_KEPT // 2)) for n in range(2)]
    with pytest.raises(GGUFError, match=rf"template\.1' there are \d{{8}} bytes .* more than {MAX_KEPT}"):
        read(tmp_path, gguf([*LLAMA, *templates]))


def test_strings_that_have_to_be_looked_at_have_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([*LLAMA, array("a", 8, [text("")]), array("b", 8, [], 60_000_000)], ()))
    os.truncate(path, 500_000_000)
    with pytest.raises(
        GGUFError, match=f"with the entry 'b' its arrays have 60000001 strings, more than {MAX_STRINGS}"
    ):
        read_header(path)


def test_only_what_is_kept_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        read(tmp_path, gguf()).number("rope.freq_base")


def test_an_unknown_file_type_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, gguf([LLAMA[0], number("general.file_type", 999)])).file_type is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(gguf(magic=b"GGML"), "begins with b'GGML'", id="magic"),
        pytest.param(b"PK\3\4" + bytes(100), "not a GGUF file", id="zip"),
        pytest.param(b"", "truncated", id="empty"),
        pytest.param(b"GGUF", "truncated: the magic number and version at byte 0", id="only-magic"),
        pytest.param(gguf(version=1), "version 1", id="old"),
        pytest.param(gguf(version=0x03000000), "version 50331648", id="big-endian"),
        pytest.param(gguf(counts=(1, MANY)), f"number of entries is {MANY}", id="many-entries"),
        pytest.param(gguf(counts=(MANY, 7)), f"number of tensors is {MANY}", id="many-tensors"),
        pytest.param(gguf(counts=(3, 7), data=64), "tensor '' has 0 dimensions", id="fewer-tensors"),
        pytest.param(gguf()[:40], "truncated: the name of an entry", id="cut-name"),
        pytest.param(gguf([text("k" * 300)], ()), "300 bytes, more than 256", id="long-name"),
        pytest.param(
            gguf([entry("general.architecture", 8, struct.pack("<Q", MANY))], ()), "more than", id="long-text"
        ),
        pytest.param(
            gguf([entry("general.architecture", 8, struct.pack("<Q", 2) + b"\xff\xfe")], ()), "not UTF-8", id="not-utf8"
        ),
        pytest.param(gguf([entry("a", 77, b"")], ()), "unknown type 77", id="type"),
        pytest.param(gguf([array("a", 9, [])], ()), "unknown type 9", id="nested-array"),
        pytest.param(gguf([array("a", 4, [], MANY)], ()), "truncated: the entry 'a'", id="lying-array"),
        pytest.param(gguf([array("a", 8, [], MANY)], ()), "truncated: the entry 'a'", id="lying-strings"),
        pytest.param(
            gguf([array("a", 8, [struct.pack("<Q", MANY)])], ()), "a string in the entry 'a'", id="lying-string"
        ),
        pytest.param(gguf([LLAMA[0], LLAMA[0]], ()), "'general.architecture' is there twice", id="twice"),
        pytest.param(gguf([number("general.file_type", 1)], ()), "general.architecture", id="no-architecture"),
        pytest.param(gguf([LLAMA[0], number("general.alignment", 3)], ()), "general.alignment is 3", id="alignment"),
        pytest.param(gguf(tensors=[tensor("t", [MANY])]), "would end at byte", id="huge-tensor"),
        pytest.param(gguf(tensors=[tensor("t", [2**40, 2**40, 2**40])]), "would end at byte", id="overflowing-tensor"),
        pytest.param(gguf(data=255), "would end at byte", id="cut-data"),
        pytest.param(gguf(tensors=[tensor("t", [32, 2], 0, MANY)]), "would end at byte", id="far-tensor"),
        pytest.param(gguf(tensors=[tensor("t", [32, 2], 0, 8)], data=999), "multiple of 32", id="unaligned"),
        pytest.param(gguf(tensors=[tensor("t", [32], kind=5)]), "unknown type 5", id="tensor-type"),
        pytest.param(gguf(tensors=[tensor("t", [33], kind=2)]), "cannot hold", id="partial-block"),
        pytest.param(gguf(tensors=[tensor("t", [32, 0])]), "cannot hold", id="empty-tensor"),
        pytest.param(gguf(tensors=[tensor("t", [1] * 5)]), "5 dimensions", id="dimensions"),
    ],
)
def test_bad_input_17_says_what_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(GGUFError, match=r"model\.gguf") as failure:
        read(tmp_path, content)

    assert said in str(failure.value)


def test_every_truncation_is_told(tmp_path: Path) -> None:
    whole = gguf()
    for length in range(len(whole)):
        with pytest.raises(GGUFError):
            read(tmp_path, whole[:length])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=500)
@given(data=st.data())
def test_any_change_of_bytes_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(gguf([*LLAMA, array("tokenizer.ggml.tokens", 8, [text("a"), text("b")])]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read(tmp_path, bytes(content))
    except GGUFError:
        return
    assert header.tensor_bytes <= len(content)


def test_a_model_in_parts_is_read_as_one(tmp_path: Path) -> None:
    later = [number("split.count", 2), number("split.no", 1)]
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(gguf(later))

    header = read(tmp_path, gguf([*LLAMA, number("split.count", 2)]), "m-00001-of-00002.gguf")

    assert header.tensor_bytes == 2 * 256


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"m-00002-of-00002\.gguf is missing"):
        read(tmp_path, gguf([*LLAMA, number("split.count", 2)]), "m-00001-of-00002.gguf")


def test_a_later_part_is_not_taken_for_the_first(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="must name the first"):
        read(tmp_path, gguf([*LLAMA, number("split.count", 2)]), "m-00002-of-00002.gguf")
