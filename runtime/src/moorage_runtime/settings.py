"""The settings: one typed object, read from the environment once, at the start of `serve`.

The names are those of the small-model server that this runtime replaces; the operator
sets the same ones from an InferenceModel. What does nothing yet is not here. msgspec reads them: importing pydantic
would cost each start of a model 0.3 s.
"""

import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from moorage_common.tasks import WAITING_PER_RUNNING, Task, default_concurrency
from moorage_runtime import machine
from moorage_runtime.presets import Preset, preset_values
from moorage_runtime.setting_words import description, problem

TERMINATION_LOG: Final = Path("/dev/termination-log")

"""Requests that may wait for each that may run, where MAX_QUEUED_REQUESTS says nothing else."""

ALIASES: Final = {"MAX_INPUT_TOKENS": "LLAMA_CTX"}
"""Other names that are taken where the first is not set."""

JSON_FIELDS: Final = frozenset({"extra_args", "request_defaults"})
"""Settings that are written as JSON."""


class Backend(StrEnum):
    """The engines that can be chosen."""

    LLAMACPP = "llamacpp"
    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    DUMMY = "dummy"


class RequestDefaults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What requests get that leave a field out; each field is one of requests, in the bounds that it has there."""

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None


class SettingsError(Exception):
    """Some settings cannot be read; the text names each, its value, and what is possible."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set; each field is an environment variable of the same name in capitals. An empty one is not set."""

    model_backend: Annotated[
        Backend, Meta(description="The engine: llamacpp, transformers, vllm, or dummy (for tests).")
    ] = Backend.LLAMACPP
    model_task: Annotated[Task, Meta(description="What the model is for: generate, or embed.")] = Task.GENERATE
    model_path: Annotated[
        Path | None,
        Meta(
            description="A .gguf file, or a folder that holds exactly one GGUF model; for transformers a folder with "
            "config.json and safetensors files."
        ),
    ] = None
    model_name: Annotated[
        Annotated[str, Meta(max_length=253, pattern=r"^[^\x00-\x1f\x7f]+$", title="without control characters")] | None,
        Meta(
            description='The name that clients put in "model", at most 253 characters. '
            "Default: the file's name without its ending."
        ),
    ] = None
    max_input_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=16 * 1024 * 1024)] | None,
        Meta(
            description="Context length of one request in tokens, prompt and answer together. llama.cpp rounds it up "
            "to a multiple of 256. Default: the model's trained context, at most 4096."
        ),
    ] = None
    llama_threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(description="Threads that compute, 1 to 1024. Default: the CPUs that cgroup and affinity allow."),
    ] = None
    max_concurrent_requests: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="Requests that the engine works on at once, 1 to 1024 (llamacpp: 256). "
            "Default: 4; 256 for embeddings by transformers."
        ),
    ] = None
    max_batch_size: Annotated[
        int, Meta(ge=1, le=1024, description="Embeddings: texts or images in one batch, 1 to 1024.")
    ] = 16
    max_wait_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Embeddings: milliseconds for which a text may be passed over for others whose lengths fit "
            "together better, 0 to 60000. Nothing ever waits for a batch to fill.",
        ),
    ] = 50
    enable_batching: Annotated[bool, Meta(description="Embeddings: false computes each text or image alone.")] = True
    image_url_hosts: Annotated[
        Annotated[
            str,
            Meta(max_length=4096, pattern=r"^[A-Za-z0-9.:\-\[\], ]*$", title="of names and addresses and commas only"),
        ]
        | None,
        Meta(
            description="Embeddings: hosts from which images may be fetched, exact names with commas between them. A "
            "private address is reached only by a host that is listed as that address. Default: none; data: URLs only."
        ),
    ] = None
    max_queued_requests: Annotated[
        Annotated[int, Meta(ge=0, le=65536)] | None,
        Meta(
            description="Requests that may wait for a place, up to 65536; more are refused (429). "
            "Default: four times MAX_CONCURRENT_REQUESTS."
        ),
    ] = None
    request_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="Seconds from the arrival of a request to the end of its answer, waiting included.",
        ),
    ] = 600.0
    model_unload_enabled: Annotated[
        bool,
        Meta(
            description="Whether the model is unloaded after an idle time; the next request loads it again, and waits."
        ),
    ] = False
    model_idle_timeout: Annotated[
        float,
        Meta(gt=0, le=31_536_000, description="Seconds without a request after which the model is unloaded."),
    ] = 1800.0
    model_preset: Annotated[
        Preset | None,
        Meta(
            description="What is taken for settings that are not set, by memory: small (under 8 GiB: 4bit, 2 requests, "
            "512 tokens, unloaded after 300 s), medium (to 16 GiB: 8bit, 5, 1024, 1800 s), large (10, 2048, 3600 s), "
            "or auto, by the memory that there is. The quantization is for engines that make it while they load. "
            "Default: none."
        ),
    ] = None
    model_quantization: Annotated[
        Annotated[str, Meta(max_length=32)] | None,
        Meta(
            description="The quantization that was asked for, such as q4_k_m; a file that says otherwise is refused. "
            "4bit and 8bit are every type of so many bits. "
            "transformers makes bitsandbytes-8bit (8bit) and bitsandbytes-4bit (4bit) of weights while it loads. "
            "Default: not checked."
        ),
    ] = None
    request_defaults: Annotated[
        RequestDefaults | None,
        Meta(
            description="What requests get that leave a field out, as a JSON object: "
            f"{', '.join(RequestDefaults.__struct_fields__)}. Default: what the engine takes."
        ),
    ] = None
    extra_args: Annotated[
        tuple[Annotated[str, Meta(max_length=128)], ...] | None,
        Meta(description="Options of the engine, as a JSON list of texts such as --flash-attn=on. Default: none."),
    ] = None
    llamacpp_driver: Annotated[
        Literal["xllamacpp", "llama-cpp-python"],
        Meta(
            description="The binding of llama.cpp: xllamacpp, or llama-cpp-python, which generates for one request "
            "at a time and lets the others wait."
        ),
    ] = "xllamacpp"
    llama_gpu_layers: Annotated[
        Annotated[int, Meta(ge=0, le=1024)] | None,
        Meta(description="Layers that llama.cpp computes on GPUs, 0 to 1024. Default: all, where there is a GPU."),
    ] = None
    torch_num_threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(
            description="Threads on which PyTorch computes, 1 to 1024 (transformers). "
            "Default: the CPUs that cgroup and affinity allow."
        ),
    ] = None
    compile_model: Annotated[
        bool,
        Meta(
            description="true: the model is compiled before it is ready (transformers), which takes a minute or more "
            "and a C++ compiler."
        ),
    ] = False
    int8_threshold: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="Activations above it stay in 16 bit, 0 to 1000 (transformers, with bitsandbytes-8bit).",
        ),
    ] = 6.0
    low_cpu_mem_usage: Annotated[
        bool,
        Meta(
            description="true: on the CPU weights stay pages of the mapped files, which the kernel can give back, "
            "unless they are computed with in another form than the files have; "
            "false: they are copied into memory (transformers)."
        ),
    ] = True
    tensor_parallel_size: Annotated[
        int, Meta(ge=1, le=64, description="GPUs that vLLM splits one copy of the model over, 1 to 64.")
    ] = 1
    gpu_memory_utilization: Annotated[
        float,
        Meta(ge=0.05, le=1, description="Share of each GPU's memory that vLLM takes for weights and KV cache."),
    ] = 0.9
    max_num_seqs: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(description="Sequences in one step of vLLM, 1 to 4096. Default: MAX_CONCURRENT_REQUESTS."),
    ] = None
    vllm_cpu_kvcache_space: Annotated[
        Annotated[int, Meta(ge=1, le=65536)] | None,
        Meta(
            description="GiB of vLLM's KV cache where there is no GPU. "
            "Default: what MAX_CONCURRENT_REQUESTS of MAX_INPUT_TOKENS each need."
        ),
    ] = None
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="The least severe log lines that are written: DEBUG, INFO, WARNING or ERROR."),
    ] = "INFO"
    enable_detailed_metrics: Annotated[
        bool,
        Meta(
            description="Whether /metrics also has what costs something for each piece of an answer: the times between "
            "pieces."
        ),
    ] = True
    host: Annotated[str, Meta(description="The address to listen on.")] = "0.0.0.0"  # noqa: S104 - a server in a pod
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one.")] = 8000
    termination_message_path: Annotated[
        Path | None,
        Meta(
            description="The file that gets the reason of a failed load. "
            "Default: /dev/termination-log where that exists, else none."
        ),
    ] = None
    drain_timeout: Annotated[
        float,
        Meta(ge=0, le=3600, description="Seconds that running requests have to finish after SIGTERM, up to 3600."),
    ] = 30.0

    @property
    def unload_after(self) -> float:
        """Seconds without a request after which the model is unloaded."""
        return self.model_idle_timeout if self.model_unload_enabled else float("inf")

    @property
    def queue_limit(self) -> int:
        """Requests that may wait."""
        given = self.max_queued_requests
        return self.concurrency * WAITING_PER_RUNNING if given is None else given

    @property
    def concurrency(self) -> int:
        """Requests that the engine works on at once."""
        return self.max_concurrent_requests or default_concurrency(self.model_task, self.model_backend)

    @property
    def image_hosts(self) -> tuple[str, ...]:
        """Hosts from which images may be fetched; an IPv6 address is listed with or without its brackets."""
        names = (name.strip().strip("[]").lower() for name in (self.image_url_hosts or "").split(","))
        return tuple(name for name in names if name)

    @property
    def termination_log(self) -> Path | None:
        """The file for the reason of a failed load."""
        return termination_log(self.termination_message_path)


def _memory() -> int | None:
    limit = machine.memory_limit()
    return None if limit is None else limit.size


def read_settings(environment: Mapping[str, str], memory: Callable[[], int | None] = _memory) -> Settings:
    """Read all settings; raise SettingsError that names every one that is wrong, not only the first."""
    values: dict[str, Any] = {}
    problems = []
    for field, hint in typing.get_type_hints(Settings, include_extras=True).items():
        name = field.upper()
        text = environment.get(name) or environment.get(ALIASES.get(name, name), "")
        if not text:
            continue
        try:
            values[field] = _value(text, hint, is_json=field in JSON_FIELDS)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            problems.append(f"{name} is {text[:100]!r}: {problem(hint, error)}. It means: {description(hint)}")
    problems += _contradictions(environment)
    if problems:
        raise SettingsError(" ".join(problems))
    if (preset := values.get("model_preset")) is not None:
        quantizes = values.get("model_backend") is Backend.TRANSFORMERS
        values = {**preset_values(preset, quantizes=quantizes, memory=memory), **values}
    return Settings(**values)


def _contradictions(environment: Mapping[str, str]) -> list[str]:
    """Name settings that were set by both of their names to different values: either could be what is meant."""
    both = [(name, environment.get(name), alias, environment.get(alias)) for name, alias in ALIASES.items()]
    return [
        f"{name} is {value[:100]!r} and {alias}, another name of it, is {other[:100]!r}: set one, or both alike."
        for name, value, alias, other in both
        if value and other and value.strip() != other.strip()
    ]


def _value(text: str, hint: Any, *, is_json: bool) -> Any:
    if is_json:
        return msgspec.json.decode(text.encode(), type=hint)
    return msgspec.convert(text, hint, strict=False, dec_hook=_path)


def termination_log(configured: Path | None) -> Path | None:
    """Give the file for the reason of a failed start: the configured one, or the kubelet's where it is."""
    if configured is not None:
        return configured
    return TERMINATION_LOG if TERMINATION_LOG.exists() else None


def describe() -> list[tuple[str, str, str]]:
    """Give name, default and meaning of every setting."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(Settings):
        name = field.name.upper()
        alias = f" (or {ALIASES[name]})" if name in ALIASES else ""
        default = "" if field.default is None else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default  # as it is written in the environment
        rows.append((name + alias, default, description(hints[field.name])))
    return rows


def _path(kind: type, value: str) -> Path:
    return Path(value)
