"""The headers of safetensors files, read and checked before an engine sees the files; no tensor is read.

Format (README of huggingface/safetensors): 8 bytes with the length of the header, the header as JSON, then the tensors.
Every size is checked against the file's, so that a header that lies is told in a sentence.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

MAX_HEADER: Final = 100_000_000
"""Bytes of a header; the format's own limit."""

MAX_FILES: Final = 1000
WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

_Size = Annotated[int, Meta(ge=0, le=2**62)]


class SafetensorsError(Exception):
    """The file is not a whole and honest safetensors file; the text is a sentence that says where and why."""


class Tensor(NamedTuple):
    """What a header says of one tensor; `size` is its bytes."""

    name: str
    type: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class _Entry(msgspec.Struct):
    dtype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=16)]
    data_offsets: tuple[_Size, _Size]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_tensors(folder: Path) -> tuple[Tensor, ...]:
    """Read the headers of the safetensors files of a model's folder; raise SafetensorsError, or OSError."""
    files = _files(folder)
    if len(files) > MAX_FILES:
        raise SafetensorsError(f"{folder.name} has {len(files)} safetensors files, more than {MAX_FILES}")
    return tuple(tensor for file in files for tensor in _read_one(file))


def _files(folder: Path) -> list[Path]:
    """Give the files that engines load, in their order of preference: a folder may hold the same weights twice."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    with (folder / INDEX).open("rb") as file:
        content = file.read(MAX_HEADER)
    try:
        names = set(msgspec.json.decode(content, type=_Index).weight_map.values())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SafetensorsError(f"{INDEX} cannot be read: {error}") from error
    for name in sorted(names):
        if Path(name).name != name or not (folder / name).is_file():
            raise SafetensorsError(f"{INDEX} names {name[:100]!r}, which is not there")
    return [folder / name for name in sorted(names)]


def _read_one(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise SafetensorsError(
                f"{path.name} is truncated or no safetensors file: its header would be {length} bytes"
            )
        if length > MAX_HEADER:
            raise SafetensorsError(f"{path.name} has a header of {length} bytes, more than {MAX_HEADER}")
        content = file.read(length)
    try:
        entries = msgspec.json.decode(content, type=dict[str, Any])
        entries.pop("__metadata__", None)
        found = msgspec.convert(entries, dict[str, _Entry])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SafetensorsError(f"{path.name} has a header that cannot be read: {error}") from error
    return [_tensor(path.name, name, entry, size - 8 - length) for name, entry in found.items()]


def _tensor(file: str, name: str, entry: _Entry, data: int) -> Tensor:
    begin, end = entry.data_offsets
    if end > data or begin > end:
        raise SafetensorsError(
            f"{file} is truncated or lies about its sizes: tensor {name[:100]!r} is at bytes {begin} to {end} of {data}"
        )
    bits = BITS.get(entry.dtype)
    if bits is not None and math.prod(entry.shape) * bits != (end - begin) * 8:
        raise SafetensorsError(
            f"{file} lies about its sizes: tensor {name[:100]!r} of type {entry.dtype} and shape {list(entry.shape)} "
            f"has {end - begin} bytes"
        )
    return Tensor(name, entry.dtype[:64], entry.shape, end - begin)
