"""The header of a GGUF file, read and checked before an engine sees the file.

llama.cpp says of a bad file only that it failed, aborts on some, and trusts sizes that it should not; so every count,
length and offset is checked here against bounds and against the size of the file, and the first thing that is wrong is
told in a sentence. Nothing is read past the header. Format: ggml/include/gguf.h and docs/gguf.md of llama.cpp.
"""

import re
import struct
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, NamedTuple

from moorage_runtime.gguf_types import FILE_TYPES, TENSOR_TYPES

Value = int | float | bool | str | list[int] | list[float] | list[bool]

MAX_ENTRIES: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_NAME: Final = 256
MAX_STRING: Final = 16 * 1024 * 1024
MAX_HEADER: Final = 512 * 1024 * 1024
MAX_KEPT_ARRAY: Final = 4096
"""Numeric arrays up to this length are kept (sizes by layer); longer ones and arrays of strings are the tokenizer's."""
TOKENS: Final = "the entry 'tokenizer.ggml.tokens'"
BYTE_VOCABULARIES: Final = {"gpt2", "llama"}
"""Tokenizers (tokenizer.ggml.model) that keep every byte of a text."""
MAX_DIMENSIONS: Final = 4
MAX_NUMBER: Final = 2**63
MAX_PARTS: Final = 999

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_LENGTH: Final = struct.Struct("<Q")

_PART: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class GGUFError(Exception):
    """The file is not a whole and honest GGUF file; the text is a sentence that says where and why."""


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
        value = self.entries.get(f"{self.architecture}.{key}")
        if isinstance(value, list):
            value = max(value, default=0)
        return int(value) if isinstance(value, (int, float)) and 0 <= value < MAX_NUMBER else None


def read_header(path: Path) -> Header:
    """Read and check a file's header, and of a model in several files (`-00001-of-00003.gguf`) those of all."""
    first = _read_one(path)
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
    headers = [first, *map(_read_one, others)]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return Header(entries=first.entries, tensors=tensors, longest_string=first.longest_string)


def _read_one(path: Path) -> Header:
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return _Reader(path.name, file, size).header()
        except _Truncated as short:
            raise GGUFError(
                f"{path.name} is truncated: {short.what} at byte {short.position} needs {short.wanted} bytes more, "
                f"the file has {size}"
            ) from None


class _Truncated(Exception):  # noqa: N818 - turned into a GGUFError at once
    def __init__(self, what: str, position: int, wanted: int) -> None:
        super().__init__(what)
        self.what, self.position, self.wanted = what, position, wanted


class _Reader:
    """A cursor on the header: everything is taken through `take`, which knows where the file ends."""

    BLOCK = 1 << 20

    def __init__(self, name: str, file: BufferedReader, size: int) -> None:
        self._name, self._file, self._size = name, file, size
        self._longest = 0
        self._tokens: int | None = None
        self._buffer = b""
        self._base = 0
        self._at = 0

    @property
    def position(self) -> int:
        return self._base + self._at

    def header(self) -> Header:
        self._check_magic()
        tensors = self._count("number of tensors", MAX_TENSORS)
        count = self._count("number of entries", MAX_ENTRIES)
        entries: dict[str, Value] = {}
        for _ in range(count):
            key = self._text("the name of an entry", MAX_NAME)
            if key in entries:
                raise self._error(f"the entry {key!r} is there twice")
            value = self._value(key)
            if value is not None:
                entries[key] = value
        if not isinstance(entries.get("general.architecture"), str):
            if "split.no" not in entries:
                raise self._error("it does not say its architecture (general.architecture)")
            entries["general.architecture"] = ""
        found = [self._tensor() for _ in range(tensors)]
        alignment = entries.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1) or alignment > 1 << 16:
            raise self._error(f"general.alignment is {alignment!r}, not a power of two")
        start = -(-self.position // alignment) * alignment
        for tensor, offset in found:
            if offset % alignment:
                raise self._error(
                    f"tensor {tensor.name!r} is at offset {offset}, which is not a multiple of {alignment}"
                )
            if start + offset + tensor.size > self._size:
                raise GGUFError(
                    f"{self._name} is truncated or lies about its sizes: tensor {tensor.name!r} would end at byte "
                    f"{start + offset + tensor.size}, the file has {self._size}"
                )
        tensors_found = tuple(tensor for tensor, _ in found)
        return Header(entries=entries, tensors=tensors_found, longest_string=self._longest, vocabulary=self._tokens)

    def take(self, length: int, what: str) -> int:
        """Make `length` bytes available and step over them; give their place in the buffer."""
        at = self._at
        if at + length > len(self._buffer):
            if self.position + length > self._size:
                raise _Truncated(what, self.position, self.position + length - self._size)
            if self.position + length > MAX_HEADER:
                raise self._error(f"its header is longer than {MAX_HEADER} bytes")
            self._base += at
            self._buffer = self._buffer[at:] + self._file.read(max(length, self.BLOCK))
            at = 0
            if length > len(self._buffer):
                raise _Truncated(what, self._base + len(self._buffer), length - len(self._buffer))
        self._at = at + length
        return at

    def skip(self, length: int, what: str) -> None:
        """Step over bytes without keeping them."""
        if self.position + length > self._size:
            raise _Truncated(what, self.position, self.position + length - self._size)
        if self._at + length <= len(self._buffer):
            self._at += length
            return
        self._base, self._at = self.position + length, 0
        self._buffer = b""
        self._file.seek(self._base)

    def _check_magic(self) -> None:
        at = self.take(8, "the magic number and version")
        magic, version = self._buffer[at : at + 4], int.from_bytes(self._buffer[at + 4 : at + 8], "little")
        if magic != b"GGUF":
            raise GGUFError(f"{self._name} is not a GGUF file: it begins with {magic!r}, not with b'GGUF'")
        if version not in {2, 3}:
            raise GGUFError(f"{self._name} has GGUF version {version}; versions 2 and 3 are known")

    def _integer(self, code: str, what: str) -> int:
        return int(self._unpack("<" + code, what)[0])

    def _unpack(self, form: str, what: str) -> tuple[Any, ...]:
        at = self.take(struct.calcsize(form), what)  # first: it may replace the buffer
        return struct.unpack_from(form, self._buffer, at)

    def _count(self, what: str, limit: int) -> int:
        count = self._integer("Q", f"the {what}")
        if count > limit:
            raise self._error(f"the {what} is {count}, more than {limit}")
        return count

    def _text(self, what: str, limit: int) -> str:
        length = self._integer("Q", what)
        if length > limit:
            raise self._error(f"{what} has {length} bytes, more than {limit}")
        at = self.take(length, what)
        try:
            return self._buffer[at : at + length].decode()
        except UnicodeDecodeError:
            raise self._error(f"{what} is not UTF-8") from None

    def _value(self, key: str) -> Value | None:
        what = f"the entry {key!r}"
        kind = self._integer("I", what)
        if kind == _STRING:
            return self._text(what, MAX_STRING)
        if kind == _ARRAY:
            return self._array(what)
        code = self._code(kind, what)
        number: int | float = self._unpack("<" + code, what)[0]
        return bool(number) if kind == _BOOL else number

    def _array(self, what: str) -> Value | None:
        kind = self._integer("I", what)
        length = self._integer("Q", what)
        if kind == _STRING:
            longest = self._skip_strings(length, what)
            if what == TOKENS:
                self._longest, self._tokens = longest, length
            return None
        code = self._code(kind, what)
        size = struct.calcsize("<" + code)
        if length > self._size // size:
            raise _Truncated(what, self.position, length * size)
        if length > MAX_KEPT_ARRAY:
            self.skip(length * size, what)
            return None
        values = list(self._unpack(f"<{length}{code}", what))
        return [bool(value) for value in values] if kind == _BOOL else values

    def _skip_strings(self, count: int, what: str) -> int:
        """Step over strings; give the length of the longest."""
        if count > self._size // 8:
            raise _Truncated(what, self.position, count * 8)
        unpack, longest = _LENGTH.unpack_from, 0
        # A vocabulary has some 10^5 strings: this loop is most of the time that reading a header takes.
        for _ in range(count):
            at = self._at
            if at + 8 > len(self._buffer):
                at = self.take(8, what)
            length = unpack(self._buffer, at)[0]
            self._at = at + 8 + length
            longest = max(longest, length)
            if self._at > len(self._buffer):
                self._at = at + 8
                if length > MAX_STRING:
                    raise self._error(f"a string in {what} has {length} bytes, more than {MAX_STRING}")
                self.take(length, what)
        return longest

    def _code(self, kind: int, what: str) -> str:
        try:
            return _SCALARS[kind]
        except KeyError:
            raise self._error(f"{what} has the unknown type {kind}") from None

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._text("the name of a tensor", MAX_NAME)
        what = f"tensor {name!r}"
        dimensions = self._integer("I", what)
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._error(f"{what} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")
        shape = [self._integer("Q", what) for _ in range(dimensions)]
        kind = self._integer("I", what)
        offset = self._integer("Q", what)
        if kind not in TENSOR_TYPES:
            raise self._error(f"{what} has the unknown type {kind}")
        label, block_elements, block_bytes = TENSOR_TYPES[kind]
        if min(shape) < 1 or shape[0] % block_elements:
            raise self._error(f"{what} has the shape {shape}, which type {label} cannot hold")
        elements = 1
        for size in shape:
            elements *= size
        rows = shape[1] if dimensions > 1 else 1
        return Tensor(name, label, dimensions, rows, elements, elements // block_elements * block_bytes), offset

    def _error(self, text: str) -> GGUFError:
        return GGUFError(f"{self._name} is not a valid GGUF file: {text} (at byte {self.position})")
