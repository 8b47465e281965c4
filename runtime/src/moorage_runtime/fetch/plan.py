"""Chooses what of a listing is fetched, and under which names it is kept. Pure.

llama.cpp gets the parts of one GGUF model, in one folder; the other engines get safetensors, tokenizer and
configuration, with the folders of sentence-transformers. Small files come first: what is wrong with them is known
before gigabytes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.names import is_allowed, is_safe_path, is_unsafe, is_weights

SHOWN: Final = 10
MAX_FILES: Final = 2000
MAX_LISTED: Final = MAX_FILES * 10
"""Files that a source may list; sources stop at it while they collect."""

_MODULE_FOLDER: Final = re.compile(r"\d{1,2}_[A-Za-z]+")
"""Folders of sentence-transformers, such as 1_Pooling."""

_MAIN_WEIGHTS: Final = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_SECOND_COPIES: Final = ("consolidated", "adapter_model")
_SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$|\.safetensors$)")


class Digest(NamedTuple):
    """What a file's content must hash to: `sha256`, or `git` for the hub's small files (sha1 of a git blob)."""

    algorithm: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One file at its source. `name` is its path there, `version` changes with its content, if the source says so."""

    name: str
    size: int | None = None
    digest: Digest | None = None
    version: str = ""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch, and the name that it gets in the folder."""

    remote: Remote
    target: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is asked for: GGUF or not, of which type, which files by name, and the sum of the one weights file."""

    gguf: bool
    quantization: str = ""
    files: tuple[str, ...] = ()
    sha256: str = ""


def plan(listing: Sequence[Remote], choice: Choice, where: str) -> list[Wanted]:
    """Choose the files, small ones first; `where` is the source in words. Raise LoadFailure where there is no model."""
    _check_names(listing, where)
    files = _named(listing, choice, where) if choice.files else _by_kind(listing, choice, where)
    wanted = [Wanted(file, PurePosixPath(file.name).name if choice.gguf else file.name) for file in files]
    _check_targets(wanted, where)
    if choice.sha256:
        wanted = _with_sum(wanted, choice.sha256, where)
    return sorted(wanted, key=lambda file: (is_weights(file.target), file.target))


def _check_names(listing: Sequence[Remote], where: str) -> None:
    if len(listing) > MAX_LISTED:
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, f"{where} holds {len(listing)} files, which is no model")
    # A source that tries to leave the folder is not trusted with anything else either.
    if odd := [file.name for file in listing if _leaves(file.name)]:
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{where} lists names that leave the folder: {odd[0][:100]!r}")


def _leaves(name: str) -> bool:
    return name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/")


def _named(listing: Sequence[Remote], choice: Choice, where: str) -> list[Remote]:
    """Take the files that were named."""
    if wrong := [name for name in choice.files if not is_allowed(name)]:
        raise LoadFailure(
            LoadError.UNSAFE_WEIGHTS if is_unsafe(wrong[0]) else LoadError.INVALID_MODEL_CONFIG,
            f"{wrong[0][:200]!r} is none of the files that are fetched: safetensors, GGUF, tokenizer and configuration",
        )
    found = {file.name: file for file in listing}
    if missing := [name for name in choice.files if name not in found]:
        raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{where} has no file {missing[0]!r}; it has {_names(found)}")
    files = [found[name] for name in dict.fromkeys(choice.files)]
    if not any(is_weights(file.name) for file in files):
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, f"none of the files {_names(choice.files)} holds weights")
    return files


def _by_kind(listing: Sequence[Remote], choice: Choice, where: str) -> list[Remote]:
    allowed = [file for file in listing if is_allowed(file.name)]
    files = _gguf(allowed, choice, where) if choice.gguf else _safetensors(allowed)
    if any(is_weights(file.name) for file in files):
        return files
    names = [file.name for file in listing]
    kind = "GGUF" if choice.gguf else "safetensors"
    if unsafe := [name for name in names if is_unsafe(name)]:
        raise LoadFailure(
            LoadError.UNSAFE_WEIGHTS,
            f"{where} has no {kind} files, only weights that can run code when they are loaded: {_names(unsafe)}; "
            "they are never fetched: convert the model, or choose a revision that has them",
        )
    raise LoadFailure(LoadError.MODEL_NOT_FOUND, f"{where} has no {kind} files; it has {_names(names)}")


def _gguf(files: Sequence[Remote], choice: Choice, where: str) -> list[Remote]:
    """Take all parts of the one GGUF model, chosen by its type where there are several."""
    models: dict[str, list[Remote]] = {}
    for file in files:
        # A projector is not a model; it belongs to one.
        if file.name.endswith(".gguf") and not PurePosixPath(file.name).name.startswith("mmproj"):
            models.setdefault(_SHARD.sub("", file.name), []).append(file)
    if len(models) > 1 and choice.quantization:
        models = {name: parts for name, parts in models.items() if _has_type(name, choice.quantization)} or models
    if len(models) > 1:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"{where} has {len(models)} GGUF models: {_names(models)}; name one in spec.source.files (MODEL_FILES), "
            "or its type in spec.quantization (MODEL_QUANTIZATION)",
        )
    parts = next(iter(models.values()), [])
    _check_whole(parts, where)
    return parts


def _has_type(name: str, quantization: str) -> bool:
    words = re.split(r"[^a-z0-9_]+", PurePosixPath(name).name.lower().removesuffix(".gguf"))
    return any(word == quantization.lower() or word.endswith("_" + quantization.lower()) for word in words[-2:])


def _check_whole(parts: Sequence[Remote], where: str) -> None:
    shards = [(int(found[1]), int(found[2])) for part in parts if (found := _SHARD.search(part.name))]
    if shards and sorted(number for number, _ in shards) != list(range(1, shards[0][1] + 1)):
        raise LoadFailure(
            LoadError.MODEL_NOT_FOUND, f"{where} has {len(shards)} of the {shards[0][1]} parts of {parts[0].name}"
        )


def _safetensors(files: Sequence[Remote]) -> list[Remote]:
    """Take weights and small files, of the top and of the folders of sentence-transformers; no second copies."""
    near = [file for file in files if _is_near(file.name) and not file.name.endswith(".gguf")]
    top = [file.name for file in near if is_weights(file.name) and "/" not in file.name]
    main = {name for name in top if _MAIN_WEIGHTS.fullmatch(name)}
    if "model.safetensors.index.json" in {file.name for file in near} and len(main) > 1:
        main.discard("model.safetensors")  # the whole once more, beside its parts
    chosen = main or {name for name in top if not name.startswith(_SECOND_COPIES)} or set(top)
    return [file for file in near if not is_weights(file.name) or "/" in file.name or file.name in chosen]


def _is_near(name: str) -> bool:
    folder, slash, rest = name.partition("/")
    return not slash or (_MODULE_FOLDER.fullmatch(folder) is not None and "/" not in rest)


def _check_targets(wanted: Sequence[Wanted], where: str) -> None:
    targets = [file.target for file in wanted]
    if len(set(targets)) != len(targets) or len(targets) > MAX_FILES:
        raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, f"{where} has files of the same name, or too many files")
    if wrong := [target for target in targets if not is_safe_path(target)]:
        raise LoadFailure(LoadError.DOWNLOAD_FAILED, f"{where} lists a name that is none: {wrong[0][:100]!r}")


def _with_sum(wanted: Sequence[Wanted], sha256: str, where: str) -> list[Wanted]:
    weights = [file.target for file in wanted if is_weights(file.target)]
    if len(weights) != 1:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"spec.source.sha256 (MODEL_SHA256) is the sum of one file, and {where} has {len(weights)} with weights: "
            f"{_names(weights)}; leave it out, or name one file in spec.source.files (MODEL_FILES)",
        )
    asked = Digest("sha256", sha256.lower())
    return [
        replace(file, remote=replace(file.remote, digest=_agreed(file.remote, asked)))
        if file.target == weights[0]
        else file
        for file in wanted
    ]


def _agreed(remote: Remote, asked: Digest) -> Digest:
    """Give the sum that was asked for; if the source itself says another, nothing need be fetched to know."""
    if remote.digest and remote.digest.algorithm == asked.algorithm and remote.digest != asked:
        raise LoadFailure(
            LoadError.CHECKSUM_MISMATCH,
            f"spec.source.sha256 (MODEL_SHA256) is {asked.value}, but the source lists {remote.name} with "
            f"{remote.digest.value}",
        )
    return asked


def _names(names: Iterable[str]) -> str:
    found = list(names)
    if not found:
        return "nothing"
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(name[:100] for name in found[:SHOWN]) + more
