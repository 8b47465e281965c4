"""The headers of safetensors files, read and checked before an engine sees the files; no tensor is read.

Format (README of huggingface/safetensors): 8 bytes with the length of the header, the header as JSON, then the tensors.
Every size is checked against the file's, so that a header that lies is told in a sentence.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

MAX_HEADER: Final = 25_000_000
"""Bytes of a header, as the hub's own client reads at most (SAFETENSORS_MAX_HEADER_LENGTH of huggingface_hub). The
format allows 100 MB, of which Python makes gigabytes; at some 100 bytes a tensor it is 250 000 of them a file."""

MAX_OBJECTS: Final = 300_000
"""JSON objects in a header, one for each tensor: empty ones take 20 times their text."""
MAX_INDEX: Final = 100_000_000
"""Bytes of the index, which names the tensors of all files: 92 000 in 9 MB for DeepSeek-V3."""

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
        content = file.read(MAX_INDEX)
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
        # Not msgspec's decoder: it takes the last of two tensors with one name.
        entries = json.loads(content.decode(), object_pairs_hook=_Objects())
        if isinstance(entries, dict):
            entries.pop("__metadata__", None)
        found = msgspec.convert(entries, dict[str, _Entry])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SafetensorsError(f"{path.name} has a header that cannot be read: {error}") from error
    data = size - 8 - length
    tensors = [_tensor(path.name, name, entry, data) for name, entry in found.items()]
    _check_order(path.name, found, data)
    return tensors


class _Objects:
    """Makes dicts of JSON objects: not too many, and no name twice in one."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._count += 1
        if self._count > MAX_OBJECTS:
            raise ValueError(f"it has more than {MAX_OBJECTS} objects")
        made = dict(pairs)
        if len(made) != len(pairs):
            for name, _ in pairs:
                if name not in made:
                    raise ValueError(f"the name {name[:100]!r} is there twice")
                del made[name]
        return made


def _check_order(file: str, entries: dict[str, _Entry], data: int) -> None:
    """See that the tensors fill the file without overlaps and holes, which the format forbids."""
    last, name = 0, ""
    for (begin, end), name in sorted((entry.data_offsets, name) for name, entry in entries.items()):
        if begin != last:
            what = "overlaps the one before it" if begin < last else "leaves a hole before it"
            text = f"tensor {name[:100]!r} at byte {begin} {what}, which ends at byte {last}"
            raise SafetensorsError(f"{file} lies about its sizes: {text}")
        last = end
    if last != data:
        raise SafetensorsError(f"{file} lies about its sizes: its tensors end at byte {last} of {data}")


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
