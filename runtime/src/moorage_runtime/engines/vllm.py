"""vLLM: its own OpenAI server in a child process, models in the Hugging Face form.

Front side: check the folder, what was asked for against what is in it, and whether it fits where there is no GPU; then
write vLLM's command line. Child side: `vllm_server`.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from moorage_common.estimate import DEFAULT_CONTEXT, Demand, estimate, mib
from moorage_common.estimate.vllm import cpu_kv_cache
from moorage_common.facts import EngineFacts, LoadError
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.engines.base import LOOPBACK, Announce, Plan
from moorage_runtime.engines.vllm_options import command_line, has_tools, read_options
from moorage_runtime.errors import (
    CONCURRENCY_NAMES,
    CONTEXT_NAMES,
    MEMORY_NAMES,
    QUANTIZATION_NAMES,
    LoadFailure,
    context_exceeded,
    plain_engine_error,
)
from moorage_runtime.hf_folder import HFFolder, check_folder, context_length

if TYPE_CHECKING:
    from moorage_common.http.message import Answer
    from moorage_runtime.settings import Settings

PROBE: Final = "/moorage/probe"
TOO_LONG: Final = "exceed_context_size_error"
"""The type of error that the child gives a prompt over the context; llama.cpp's word."""

WHILE_LOADING: Final = {"fp8": "fp8_per_tensor"}
"""What vLLM can make of weights that are not quantized, by its own name for it. bitsandbytes went with version 0.32."""

FOUR_BIT: Final = frozenset({"gptq", "awq"})
"""Schemes for which vLLM's build for the CPU needs AVX-512."""

NO_FIELDS: Final = frozenset(
    {"cache_prompt", "grammar", "json_schema", "n_probs", "response_format.schema", "typical_p"}
)
"""Fields that are llama.cpp's own."""

TOOL_FIELDS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

LOG_LINE: Final = re.compile(
    r"^(?:\(\S+ pid=\d+\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?: [\d-]+ [\d:]+ \[([\w.]+):\d+\] ?|: *)(.*)$"
)

# What vLLM does in each step is information to it; a start alone writes a hundred such lines.
LOG_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.DEBUG,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.ERROR,
}

LOG_TRACE: Final = re.compile(r"\s|Traceback \(most recent call last\)")
"""The lines of a traceback above the one that names the error, each of which is a line of log to vLLM."""

LOG_OF_REQUESTS: Final = frozenset({"serving.py", "protocol.py", "validation.py", "http.py", "exception.py"})
"""Files whose lines are on one request and may hold what is in it; whoever sent it is told."""

# Known on every CPU, and nothing that a person could mend.
LOG_IGNORED: Final = re.compile(
    r"Triton|LD_PRELOAD|Enforce eager set|Inductor compilation was disabled|oneDNN linear|ulimit|Model Runner V2"
)

# Of lines without a level only these are shown: the rest may be what a client sent.
LOG_FATAL: Final = re.compile(r"^(terminate called|Fatal Python error|torch\.\w*OutOfMemoryError)")


class ChildConfig(msgspec.Struct, frozen=True):
    """What the child needs to know."""

    arguments: tuple[str, ...]
    """vLLM's command line."""
    threads: int | None = None
    """Threads that compute on the CPU; None on a GPU, where vLLM decides."""
    verbose: bool = False


class Vllm:
    """The engine `vllm`."""

    name = "vllm"
    # Nothing is fetched, nothing is reported, and no switch of vLLM's that opens a door is on.
    environment: Mapping[str, str] = MappingProxyType(
        {
            # A library that vLLM brings along for SageMaker imports model.py from here, /opt/ml/model by default.
            "CUSTOM_FASTAPI_INVOCATION_HANDLER": "",
            "CUSTOM_FASTAPI_MIDDLEWARE_PRE_POST_PROCESS": "",
            "CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE": "",
            "CUSTOM_FASTAPI_PING_HANDLER": "",
            "CUSTOM_POST_PROCESS": "",
            "CUSTOM_PRE_PROCESS": "",
            "SAGEMAKER_MODEL_PATH": "/dev/null/none",
            "DO_NOT_TRACK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
            "VLLM_API_KEY": "",
            "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "0",
            "VLLM_HOST_IP": LOOPBACK,
            "VLLM_LOGGING_COLOR": "0",
            "VLLM_MAX_STOP_STRINGS": "16",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "0",
        }
    )

    def plan(self, settings: Settings) -> Plan:
        """Check options, folder, quantization, context and memory, in the order in which a person would mend them."""
        options = read_options(settings.extra_args)
        folder = check_folder(settings.model_path)
        try:
            quantize = _quantize(settings.model_quantization, folder)
            context = context_length(settings.max_input_tokens, folder, default=DEFAULT_CONTEXT)
            on_cpu = not machine.has_accelerator()
            demand = _demand(settings, context, on_cpu=on_cpu)
            if on_cpu:
                _check_processor(folder)
                _check_memory(folder, demand, settings.vllm_cpu_kvcache_space)
        except LoadFailure as failure:
            raise LoadFailure(failure.termination.reason, failure.termination.message, folder.shape) from failure
        served_name = settings.model_name or folder.path.name
        arguments = _arguments(settings, folder, served_name, context)
        if on_cpu:
            arguments += ["--enforce-eager", f"--kv-cache-memory-bytes={cpu_kv_cache(folder.shape, demand)}"]
        if quantize is not None:
            arguments.append(f"--quantization={quantize}")
        arguments += command_line(options)
        config = ChildConfig(
            arguments=tuple(arguments),
            threads=max(1, machine.usable_cpus() - 1) if on_cpu else None,
            verbose=settings.log_level == "DEBUG",
        )
        generates = settings.model_task is Task.GENERATE
        route = "/v1/completions" if generates else "/v1/embeddings"
        smoke = {"prompt": "Hi", "max_tokens": 1} if generates else {"input": "Hi"}
        return Plan(
            served_name=served_name,
            facts=EngineFacts(
                engine="vLLM",
                quantization=settings.model_quantization if quantize else folder.quantization,
                context_length=context,
                weights_bytes=folder.shape.stored_bytes,
            ),
            shape=folder.shape,
            config=msgspec.json.encode(config),
            smoke_path=route,
            smoke_body=msgspec.json.encode({"model": served_name, **smoke}),
            probe_path=PROBE,
            routes=frozenset({"/v1/chat/completions", "/v1/completions"} if generates else {route}),
            refused=_refused(options) if generates else _refused_inputs(folder),
            renamed={"repeat_penalty": "repetition_penalty"} if generates else {},
            capped=dict.fromkeys(("max_tokens", "max_completion_tokens"), context) if generates else {},
            metrics_path="/metrics",
            metrics_prefix=b"vllm:",
            works_on_cpu=on_cpu,
            notes=(f"loading {folder.path} with {' '.join(arguments)}, estimated at {estimate(folder.shape, demand)}",),
        )

    def preload(self) -> None:
        """Import what takes time, after the guard was forked, which has to be small."""
        importlib.import_module("moorage_runtime.engines.session_guard").guard()
        importlib.import_module("moorage_runtime.engines.vllm_server").preload()

    def serve(self, config: bytes, announce: Announce) -> None:
        """Serve until the engine dies; the process itself is ended by a signal."""
        wanted = msgspec.json.decode(config, type=ChildConfig)
        importlib.import_module("moorage_runtime.engines.vllm_server").serve(wanted, announce)

    def error(self, status: int, error: dict[str, Any]) -> Answer:
        """Give a prompt over the context its OpenAI code; the rest is passed on with OpenAI's types."""
        if error.get("type") == TOO_LONG:
            prompt, context = int(error["n_prompt_tokens"]), int(error["n_ctx"])
            # vLLM stops to count one token after the last that it could take.
            return context_exceeded(prompt, context, at_least=prompt == context + 1)
        kind = "invalid_request_error" if status < 500 else "server_error"
        return plain_engine_error(status, {**error, "type": kind})

    def log_line(self, line: str) -> tuple[int, str]:
        """Take vLLM's own level from the line."""
        found = LOG_LINE.match(line)
        if found is None:
            return logging.ERROR if LOG_FATAL.match(line) else logging.DEBUG, line
        level, file, text = found.groups()
        if file in LOG_OF_REQUESTS or LOG_IGNORED.search(text) or LOG_TRACE.match(text):
            return logging.DEBUG, text
        return LOG_LEVELS[level], text


def _arguments(settings: Settings, folder: HFFolder, served_name: str, context: int) -> list[str]:
    """Write the command line that does not depend on where the model runs."""
    runner = ["--runner=generate"] if settings.model_task is Task.GENERATE else ["--runner=pooling", "--convert=embed"]
    return [
        f"--model={folder.path}",
        f"--served-model-name={served_name}",
        f"--max-model-len={context}",
        f"--max-num-seqs={settings.max_num_seqs or settings.concurrency}",
        f"--tensor-parallel-size={settings.tensor_parallel_size}",
        f"--gpu-memory-utilization={settings.gpu_memory_utilization}",
        "--load-format=safetensors",
        "--config-format=hf",
        "--worker-extension-cls=moorage_runtime.engines.vllm_worker.LoadedFacts",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
        "--no-enable-log-requests",
        *runner,
    ]


def _refused(options: Mapping[str, str]) -> frozenset[str]:
    return NO_FIELDS if has_tools(options) else NO_FIELDS | TOOL_FIELDS


def _refused_inputs(folder: HFFolder) -> frozenset[str]:
    """Refuse a number of dimensions, except for models that were trained to be cut (Matryoshka embeddings)."""
    trained = folder.config.get("is_matryoshka") or folder.config.get("matryoshka_dimensions")
    return frozenset({"truncate"} if trained else {"truncate", "dimensions"})


def _demand(settings: Settings, context: int, *, on_cpu: bool) -> Demand:
    return Demand(
        Vllm.name,
        context,
        settings.concurrency,
        quantization=settings.model_quantization,
        gpus=0 if on_cpu else settings.tensor_parallel_size,
        options=settings.extra_args or (),
    )


def _quantize(asked: str | None, folder: HFFolder) -> str | None:
    """Give what vLLM is to quantize to while loading; None where it finds in the files what they have."""
    found = folder.quantization
    if asked is None or asked == found:
        return None
    if found == "none" and asked in WHILE_LOADING:
        return WHILE_LOADING[asked]
    can = f"; while loading, vLLM makes {', '.join(WHILE_LOADING)} only" if found == "none" else ""
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG,
        f"{QUANTIZATION_NAMES} asked for is {asked}, but the files of {folder.path} have {found}{can}",
    )


def _check_processor(folder: HFFolder) -> None:
    """Refuse what vLLM finds out at the first request only, by dying."""
    if folder.quantization in FOUR_BIT and machine.lacks("avx512f"):
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"the files of {folder.path} have {folder.quantization}, which vLLM computes on GPUs or processors with "
            "AVX-512, and this one has it not: ask for a GPU (spec.gpu), take another node, or files in another form",
        )


def _check_memory(folder: HFFolder, demand: Demand, kv_cache_gib: int | None) -> None:
    limit = machine.memory_limit()
    needed = estimate(folder.shape, demand)
    if kv_cache_gib is not None:
        needed = needed._replace(kv_cache=kv_cache_gib * 1024**3)
    if limit is None or needed.total <= limit.size:
        return
    raise LoadFailure(
        LoadError.OUT_OF_MEMORY,
        f"{folder.path} needs about {needed} for {demand.requests} requests of {demand.context} tokens, and "
        f"{limit.source} is {mib(limit.size)}; lower {CONTEXT_NAMES} or {CONCURRENCY_NAMES}, or raise {MEMORY_NAMES} "
        f"to at least {mib(needed.total)}",
    )


ENGINE = Vllm()
