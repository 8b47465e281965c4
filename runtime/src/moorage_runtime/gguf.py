"""The header of a GGUF file, read and checked before an engine sees the file.

llama.cpp says of a bad file only that it failed, aborts on some, and trusts sizes that it should not; so every count,
length and offset is checked here against bounds and against the size of the file, and the first thing that is wrong is
told in a sentence. Nothing is read past the header. Format: ggml/include/gguf.h and docs/gguf.md of llama.cpp.
"""

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from moorage_runtime.gguf_cursor import MAX_STRING, Cursor, GGUFError, Spent, Truncated
from moorage_runtime.gguf_types import FILE_TYPES, TENSOR_TYPES

Value = int | float | bool | str | list[int] | list[float] | list[bool]

MAX_ENTRIES: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_NAME: Final = 256
MAX_KEPT: Final = 16 * 1024 * 1024
"""Bytes of all entries that are kept: a few names and numbers, and templates, which have some 10^4 bytes."""
NUMBER_BYTES: Final = 40
"""Memory that a number in a list takes in Python."""
MAX_KEPT_ARRAY: Final = 4096
"""Numeric arrays up to this length are kept (sizes by layer); longer ones and arrays of strings are the tokenizer's."""
TOKENS: Final = "the entry 'tokenizer.ggml.tokens'"
TEMPLATE: Final = "tokenizer.chat_template"
"""What the names of chat templates begin with."""
KEPT: Final = frozenset(
    {
        "general.alignment",
        "general.architecture",
        "general.file_type",
        "split.count",
        "split.no",
        "tokenizer.ggml.model",
    }
)
KEPT_BY_ARCHITECTURE: Final = frozenset(
    {
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.shared_kv_layers"),
        *("attention.sliding_window", "attention.sliding_window_pattern", "attention.value_length", "block_count"),
        *("context_length", "embedding_length", "expert_feed_forward_length", "expert_shared_feed_forward_length"),
        *("expert_used_count", "feed_forward_length", "pooling_type", "vocab_size"),
    }
)
"""All that anything here asks for; other entries are stepped over, so that no file chooses what memory it takes."""
_ENDINGS: Final = tuple(f".{key}" for key in KEPT_BY_ARCHITECTURE)
BYTE_VOCABULARIES: Final = {"gpt2", "llama"}
"""Tokenizers (tokenizer.ggml.model) that keep every byte of a text."""
MAX_DIMENSIONS: Final = 4
MAX_NUMBER: Final = 2**63
MAX_PARTS: Final = 999

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}

_PART: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class Tensor(NamedTuple):
    """What the header says of one tensor: `rows` is its second dimension, `size` its bytes."""

    name: str
    type: str
    dimensions: int
    rows: int
    elements: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of a model by its header alone."""

    entries: dict[str, Value] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    longest_string: int = 0
    """Bytes of the longest token of the vocabulary, as it is written there."""
    vocabulary: int | None = None
    """How many tokens there are; None where the file does not list them."""

    @property
    def longest_token(self) -> int | None:
        """Bytes of text that a token can stand for at most, as `vocabulary` says; None where that is not certain."""
        known = self.entries.get("tokenizer.ggml.model") in BYTE_VOCABULARIES
        return self.longest_string or None if known else None

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def architecture(self) -> str:
        """The name that the architecture's entries begin with, such as `llama`."""
        return str(self.entries["general.architecture"])

    @property
    def file_type(self) -> str | None:
        """The quantization that the file claims, such as `Q4_K_M`; None where it says nothing that is known."""
        number = self.entries.get("general.file_type")
        return FILE_TYPES.get(number) if isinstance(number, int) else None

    @property
    def context_length(self) -> int | None:
        """The context that the model was trained with, in tokens."""
        return self.number("context_length")

    def number(self, key: str) -> int | None:
        """Give a whole number of the architecture's entries; of one by layer the largest."""
        if key not in KEPT_BY_ARCHITECTURE:
            raise KeyError(key)
        value = self.entries.get(f"{self.architecture}.{key}")
        if isinstance(value, list):
            value = max(value, default=0)
        return int(value) if isinstance(value, (int, float)) and 0 <= value < MAX_NUMBER else None


def read_header(path: Path) -> Header:
    """Read and check a file's header, and of a model in several files (`-00001-of-00003.gguf`) those of all."""
    spent = Spent()
    first = _read_one(path, spent)
    parts = first.entries.get("split.count", 1)
    if not isinstance(parts, int) or parts <= 1:
        return first
    name = _PART.search(path.name)
    if name is None or int(name[2]) != parts or int(name[1]) != 1 or parts > MAX_PARTS:
        raise GGUFError(
            f"{path.name} is one of {parts} parts of a model; the path must name the first, …-00001-of-{parts:05}.gguf"
        )
    others = [path.with_name(f"{path.name[: name.start()]}-{n:05}-of-{parts:05}.gguf") for n in range(2, parts + 1)]
    missing = [other.name for other in others if not other.is_file()]
    if missing:
        raise GGUFError(f"{path.name} is one of {parts} parts of a model, and {missing[0]} is missing")
    tensors = list(first.tensors)
    for other in others:
        tensors += _read_one(other, spent).tensors
        if len(tensors) > MAX_TENSORS:
            raise GGUFError(f"the parts of {path.name} have {len(tensors)} tensors, more than {MAX_TENSORS}")
    return Header(entries=first.entries, tensors=tuple(tensors), longest_string=first.longest_string)


def _read_one(path: Path, spent: Spent) -> Header:
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return _Reader(Cursor(path.name, file, size), spent).header()
        except Truncated as short:
            raise GGUFError(
                f"{path.name} is truncated: {short.what} at byte {short.position} needs {short.wanted} bytes more, "
                f"the file has {size}"
            ) from None


class _Reader:
    """Reads one header."""

    def __init__(self, cursor: Cursor, spent: Spent) -> None:
        self._cursor = cursor
        self._spent = spent
        self._longest = 0
        self._tokens: int | None = None

    def header(self) -> Header:
        self._check_magic()
        tensors = self._count("number of tensors", MAX_TENSORS)
        count = self._count("number of entries", MAX_ENTRIES)
        entries: dict[str, Value] = {}
        names = set[str]()
        for _ in range(count):
            key = self._cursor.text("the name of an entry", MAX_NAME)
            if key in names:
                raise self._cursor.error(f"the entry {key!r} is there twice")
            names.add(key)
            value = self._value(key)
            if value is not None:
                entries[key] = value
        if not isinstance(entries.get("general.architecture"), str):
            if "split.no" not in entries:
                raise self._cursor.error("it does not say its architecture (general.architecture)")
            entries["general.architecture"] = ""
        found = [self._tensor() for _ in range(tensors)]
        self._check_places(found, entries.get("general.alignment", 32))
        return Header(
            entries=entries,
            tensors=tuple(tensor for tensor, _ in found),
            longest_string=self._longest,
            vocabulary=self._tokens,
        )

    def _check_places(self, found: list[tuple[Tensor, int]], alignment: Value) -> None:
        cursor = self._cursor
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1) or alignment > 1 << 16:
            raise cursor.error(f"general.alignment is {alignment!r}, not a power of two")
        start = -(-cursor.position // alignment) * alignment
        for tensor, offset in found:
            if offset % alignment:
                raise cursor.error(
                    f"tensor {tensor.name!r} is at offset {offset}, which is not a multiple of {alignment}"
                )
            if start + offset + tensor.size > cursor.size:
                raise GGUFError(
                    f"{cursor.name} is truncated or lies about its sizes: tensor {tensor.name!r} would end at byte "
                    f"{start + offset + tensor.size}, the file has {cursor.size}"
                )

    def _check_magic(self) -> None:
        magic, version = self._cursor.unpack("<4sI", "the magic number and version")
        if magic != b"GGUF":
            raise GGUFError(f"{self._cursor.name} is not a GGUF file: it begins with {magic!r}, not with b'GGUF'")
        if version not in {2, 3}:
            raise GGUFError(f"{self._cursor.name} has GGUF version {version}; versions 2 and 3 are known")

    def _count(self, what: str, limit: int) -> int:
        count = self._cursor.integer("Q", f"the {what}")
        if count > limit:
            raise self._cursor.error(f"the {what} is {count}, more than {limit}")
        return count

    def _value(self, key: str) -> Value | None:
        what = f"the entry {key!r}"
        kind = self._cursor.integer("I", what)
        kept = key in KEPT or key.startswith(TEMPLATE) or key.endswith(_ENDINGS)
        if kind == _STRING:
            length = self._cursor.length(what, MAX_STRING)
            if not kept:
                self._cursor.skip(length, what)
                return None
            self._keep(length, what)
            return self._cursor.decoded(length, what)
        if kind == _ARRAY:
            return self._array(what, kept=kept)
        code = self._code(kind, what)
        if not kept:
            self._cursor.skip(struct.calcsize("<" + code), what)
            return None
        self._keep(NUMBER_BYTES, what)
        number: int | float = self._cursor.unpack("<" + code, what)[0]
        return bool(number) if kind == _BOOL else number

    def _array(self, what: str, *, kept: bool) -> Value | None:
        kind = self._cursor.integer("I", what)
        length = self._cursor.integer("Q", what)
        if kind == _STRING:
            longest = self._cursor.skip_strings(length, what, self._spent)
            if what == TOKENS:
                self._longest, self._tokens = longest, length
            return None
        code = self._code(kind, what)
        size = struct.calcsize("<" + code)
        if length > self._cursor.size // size:
            raise Truncated(what, self._cursor.position, length * size)
        if not kept or length > MAX_KEPT_ARRAY:
            self._cursor.skip(length * size, what)
            return None
        self._keep(length * NUMBER_BYTES, what)
        values = list(self._cursor.unpack(f"<{length}{code}", what))
        return [bool(value) for value in values] if kind == _BOOL else values

    def _keep(self, count: int, what: str) -> None:
        self._spent.kept += count
        if self._spent.kept > MAX_KEPT:
            text = f"with {what} there are {self._spent.kept} bytes to keep of its entries, more than {MAX_KEPT}"
            raise self._cursor.error(text)

    def _code(self, kind: int, what: str) -> str:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise self._cursor.error(f"{what} has the unknown type {kind}") from None

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._cursor.text("the name of a tensor", MAX_NAME)
        what = f"tensor {name!r}"
        dimensions = self._cursor.integer("I", what)
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._cursor.error(f"{what} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        shape = [self._cursor.integer("Q", what) for _ in range(dimensions)]
        kind = self._cursor.integer("I", what)
        offset = self._cursor.integer("Q", what)
        if kind not in TENSOR_TYPES:
            raise self._cursor.error(f"{what} has the unknown type {kind}")
        label, block_elements, block_bytes = TENSOR_TYPES[kind]
        if min(shape) < 1 or shape[0] % block_elements:
            raise self._cursor.error(f"{what} has the shape {shape}, which type {label} cannot hold")
        elements = 1
        for size in shape:
            elements *= size
        rows = shape[1] if dimensions > 1 else 1
        return Tensor(name, label, dimensions, rows, elements, elements // block_elements * block_bytes), offset
