"""The settings of `fetch`, read from the environment once. Secrets are not among them: see `secrets`."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from moorage_runtime.fetch.hub import ENDPOINT
from moorage_runtime.fetch.source import is_loopback
from moorage_runtime.setting_words import description, problem
from moorage_runtime.settings import Backend, SettingsError, termination_log

JSON_FIELDS: Final = frozenset({"model_files"})


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set; each field is an environment variable of the same name in capitals. An empty one is not set."""

    model_source: Annotated[
        Annotated[str, Meta(max_length=1024)],
        Meta(description="The address: hf://OWNER/NAME@REVISION, https://… or s3://BUCKET/PREFIX. It must be set."),
    ] = ""
    model_folder: Annotated[Path, Meta(description="The folder that the files are put into.")] = Path("/models")
    model_backend: Annotated[
        str, Meta(description="The engine that the files are for: llamacpp gets GGUF, any other safetensors.")
    ] = Backend.LLAMACPP.value
    model_quantization: Annotated[
        Annotated[str, Meta(max_length=32)],
        Meta(description="Which GGUF model is meant where there are several, such as q4_k_m. Default: there is one."),
    ] = ""
    model_files: Annotated[
        Annotated[tuple[Annotated[str, Meta(max_length=255)], ...], Meta(max_length=64)],
        Meta(description="The files to fetch, as a JSON list of names. Default: those that the engine needs."),
    ] = ()
    model_sha256: Annotated[
        Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{64})?$", title="of 64 hexadecimal digits")],
        Meta(description="The SHA-256 of the one file of weights, 64 hexadecimal digits. Default: what the hub lists."),
    ] = ""
    model_size_limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Bytes that the folder's volume may hold. Default: what is free on it."),
    ] = None
    fetch_concurrency: Annotated[int, Meta(ge=1, le=16, description="Files that are fetched at a time, 1 to 16.")] = 4
    fetch_stall_seconds: Annotated[
        float, Meta(gt=0, le=600, description="Seconds without a byte after which a connection is given up, up to 600.")
    ] = 30.0
    fetch_attempts: Annotated[
        int, Meta(ge=1, le=100, description="Attempts in a row that may get nothing on, 1 to 100.")
    ] = 6
    hf_endpoint: Annotated[
        str, Meta(description="Where the hub is; for tests only: it must be on this machine's loopback.")
    ] = ENDPOINT
    host: Annotated[str, Meta(description="The address that tells the progress.")] = "0.0.0.0"  # noqa: S104
    port: Annotated[int, Meta(ge=0, le=65535, description="Its port; 0 takes a free one.")] = 8000
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="The least severe log lines that are written.")
    ] = "INFO"
    termination_message_path: Annotated[
        Path | None,
        Meta(description="The file that gets the reason of a failure. Default: /dev/termination-log where it exists."),
    ] = None

    @property
    def termination_log(self) -> Path | None:
        """The file for the reason of a failure."""
        return termination_log(self.termination_message_path)


def read_fetch_settings(environment: Mapping[str, str]) -> FetchSettings:
    """Read all settings; raise SettingsError that names every one that is wrong."""
    values: dict[str, Any] = {}
    problems = []
    for field, hint in typing.get_type_hints(FetchSettings, include_extras=True).items():
        name = field.upper()
        text = environment.get(name, "")
        if not text:
            continue
        try:
            values[field] = _value(text, hint, is_json=field in JSON_FIELDS)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            problems.append(f"{name} is {text[:100]!r}: {problem(hint, error)}. It means: {description(hint)}")
    settings = FetchSettings(**values)
    if not settings.model_source:
        problems.append("MODEL_SOURCE is not set: name an address, such as hf://OWNER/NAME@REVISION.")
    if settings.hf_endpoint != ENDPOINT and not is_loopback(settings.hf_endpoint):
        problems.append(f"HF_ENDPOINT is {settings.hf_endpoint[:100]!r}: it is for tests only, and must be a loopback.")
    if problems:
        raise SettingsError(" ".join(problems))
    return settings


def describe() -> list[tuple[str, str, str]]:
    """Give name, default and meaning of every setting."""
    hints = typing.get_type_hints(FetchSettings, include_extras=True)
    return [
        (field.name.upper(), str(field.default or ""), description(hints[field.name]))
        for field in msgspec.structs.fields(FetchSettings)
    ]


def _value(text: str, hint: Any, *, is_json: bool) -> Any:
    if is_json:
        return msgspec.json.decode(text.encode(), type=hint)
    return msgspec.convert(text, hint, strict=False, dec_hook=lambda _kind, value: Path(value))
