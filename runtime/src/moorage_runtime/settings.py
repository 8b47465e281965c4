"""The settings: one typed object, read from the environment once, at the start of `serve`.

The names are those of the small-model server that this runtime replaces (shared/requirements.md, part A); the operator
sets the same ones from an InferenceModel. What does nothing yet is not here.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

TERMINATION_LOG: Final = Path("/dev/termination-log")


class Backend(StrEnum):
    """The engines that can be chosen."""

    LLAMACPP = "llamacpp"
    DUMMY = "dummy"


class TerminationSettings(BaseSettings):
    """Where the reason of a failed start goes; read by itself where the rest cannot be read."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", protected_namespaces=())

    termination_message_path: Annotated[
        Path | None,
        Field(
            description="The file that gets the reason of a failed load. "
            "Default: /dev/termination-log where that exists, else none."
        ),
    ] = None

    @property
    def termination_log(self) -> Path | None:
        """The file for the reason of a failed load."""
        if self.termination_message_path is not None:
            return self.termination_message_path
        return TERMINATION_LOG if TERMINATION_LOG.exists() else None


class Settings(TerminationSettings):
    """What can be set; each field is an environment variable of the same name in capitals."""

    model_backend: Annotated[Backend, Field(description="The engine: llamacpp, or dummy (for tests).")] = (
        Backend.LLAMACPP
    )
    model_path: Annotated[
        Path | None, Field(description="A .gguf file, or a folder that holds exactly one GGUF model.")
    ] = None
    model_name: Annotated[
        str | None,
        Field(
            description='The name that clients put in "model". Default: the file\'s name without its ending.',
            min_length=1,
            max_length=253,
            pattern=r"^[^\x00-\x1f\x7f]+$",
        ),
    ] = None
    max_input_tokens: Annotated[
        int | None,
        Field(
            description="Context length of one request in tokens, prompt and answer together. "
            "Default: the model's trained context, at most 4096. Rounded up to a multiple of 256 by llama.cpp.",
            ge=1,
            le=16 * 1024 * 1024,
            validation_alias=AliasChoices("max_input_tokens", "llama_ctx"),
        ),
    ] = None
    llama_threads: Annotated[
        int | None,
        Field(description="Threads that compute. Default: the CPUs that cgroup and affinity allow.", ge=1, le=1024),
    ] = None
    max_concurrent_requests: Annotated[
        int,
        Field(description="Requests that the engine works on at once; four times as many may wait.", ge=1, le=1024),
    ] = 4
    model_quantization: Annotated[
        str | None,
        Field(
            description="The quantization that was asked for, such as Q4_K_M; a file that says otherwise is refused. "
            "Default: not checked.",
            max_length=32,
        ),
    ] = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="The least severe log lines that are written.")
    ] = "INFO"
    host: Annotated[str, Field(description="The address to listen on.")] = "0.0.0.0"  # noqa: S104 - a server in a pod
    port: Annotated[int, Field(description="The port to listen on; 0 takes a free one.", ge=0, le=65535)] = 8000
    drain_timeout: Annotated[
        float, Field(description="Seconds that running requests have to finish after SIGTERM.", ge=0, le=3600)
    ] = 30.0


def describe() -> list[tuple[str, str, str]]:
    """Give name, default and meaning of every setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        variable = name.upper() + (" (LLAMA_CTX)" if name == "max_input_tokens" else "")
        default = "" if field.default is None else str(getattr(field.default, "value", field.default))
        rows.append((variable, default, field.description or ""))
    return rows
