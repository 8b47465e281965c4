"""llama.cpp by xllamacpp: its C++ server in a child process, GGUF files only.

Front side: find the file, read its header, compare what was asked for with what is in it, and see whether it fits into
memory. Child side: the server of xllamacpp on a free port of loopback.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from moorage_common.estimate import Demand, estimate
from moorage_common.estimate.llamacpp import CHECKPOINTS, on_gpus
from moorage_common.facts import CPU, EngineFacts, LoadError
from moorage_common.tasks import Task
from moorage_runtime import machine
from moorage_runtime.engines import llamacpp_python
from moorage_runtime.engines.base import LOOPBACK, Announce, Announcement, Plan
from moorage_runtime.engines.llamacpp_checks import (
    TOOLS,
    check_memory,
    check_quantization,
    checked_slots,
    context_of_slot,
    knows_tools,
    pooling_of,
)
from moorage_runtime.engines.llamacpp_options import read_options, set_options
from moorage_runtime.errors import (
    LoadFailure,
    context_exceeded,
    plain_engine_error,
)
from moorage_runtime.gguf import Header, read_header
from moorage_runtime.gguf_cursor import GGUFError
from moorage_runtime.gguf_shape import gguf_shape
from moorage_runtime.model_files import find_gguf

if TYPE_CHECKING:
    from pathlib import Path

    from moorage_common.http.message import Answer
    from moorage_runtime.settings import Settings

LLAMA_CPP_PYTHON: Final = "llama-cpp-python"

ACCELERATORS: Final = {"GGML_BACKEND_DEVICE_TYPE_GPU", "GGML_BACKEND_DEVICE_TYPE_IGPU"}
"""ggml's devices of type ACCEL are libraries that help the CPU."""

# An embedding that does not go into one batch is refused by words only.
TOO_LARGE: Final = re.compile(r"^input \((\d+) tokens\) is too large to process.*batch size: (\d+)\)")

LOG_LINE: Final = re.compile(r"^[\d.]+ ([DIWE]) +(.*)$")

# Information of llama.cpp is a line for each step of each request.
LOG_LEVELS: Final = {"D": logging.DEBUG, "I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR}

# Not worth a person's attention: the front is the only client, and what is wrong with a request is told to whoever sent
# it; lines that begin with `slot` are steps of requests.
LOG_IGNORED: Final = re.compile(
    r"^slot |^llg error|security: no API key|send_error: task id|cancel task|got exception|Wrong type supplied"
    r"|failed to launch slot|failed to parse grammar"
)

# Of lines without a level only these are shown: the rest may be what a client sent, such as the grammar at fault.
LOG_FATAL: Final = re.compile(r"^(terminate called|Fatal Python error|\S+:\d+: GGML_ASSERT\()")


class Job(NamedTuple):
    """What a task means for the plan."""

    routes: frozenset[str]
    refused: frozenset[str]
    smoke_path: str
    smoke_body: bytes


GENERATION: Final = Job(
    frozenset({"/v1/chat/completions", "/v1/completions"}),
    frozenset(),
    "/v1/completions",
    msgspec.json.encode({"prompt": "Hi", "max_tokens": 1, "cache_prompt": False}),
)
EMBEDDING: Final = Job(
    frozenset({"/v1/embeddings"}),
    frozenset({"dimensions", "truncate"}),
    "/v1/embeddings",
    msgspec.json.encode({"input": "Hi"}),
)


class ChildConfig(msgspec.Struct, frozen=True):
    """What the child needs to know."""

    path: str
    alias: str
    context: int
    slots: int
    threads: int
    accelerated_bytes: int = 0
    """Bytes of weights that accelerators are to hold, if there are any."""
    verbose: bool = False
    gpu_layers: int | None = None
    options: dict[str, str] = {}
    pooling: str | None = None
    """How the vectors of a prompt's tokens become one: the engine makes embeddings."""
    driver: str = "xllamacpp"


class LlamaCpp:
    """The engine `llamacpp`."""

    name = "llamacpp"
    # Idle OpenMP threads must sleep: spinning ones hung now and then on busy cores.
    environment: Mapping[str, str] = MappingProxyType({"OMP_WAIT_POLICY": "passive"})

    def plan(self, settings: Settings) -> Plan:
        """Check file, quantization, context and memory, in the order in which a person would mend them."""
        one_by_one = settings.llamacpp_driver == LLAMA_CPP_PYTHON
        options = _options_of_driver(settings) if one_by_one else read_options(settings.extra_args)
        path = find_gguf(settings.model_path)
        header = _header_of(path)
        shape = gguf_shape(header)
        try:
            check_quantization(settings.model_quantization, header, path.name)
            context = context_of_slot(settings.max_input_tokens, shape)
            slots = 1 if one_by_one else checked_slots(settings.concurrency)
            embeds = settings.model_task is Task.EMBED
            demand = Demand(self.name, context, slots, options=settings.extra_args or (), embeds=embeds)
            check_memory(shape, demand, path.name)
        except LoadFailure as failure:
            raise LoadFailure(failure.termination.reason, failure.termination.message, shape) from failure
        served_name = settings.model_name or path.stem
        layers, all_layers = on_gpus(shape, settings.llama_gpu_layers)
        config = ChildConfig(
            path=str(path),
            alias=served_name,
            context=context,
            slots=slots,
            threads=settings.llama_threads or machine.usable_cpus(),
            accelerated_bytes=shape.stored_bytes * layers // all_layers,
            verbose=settings.log_level == "DEBUG",
            gpu_layers=settings.llama_gpu_layers,
            options=options,
            pooling=pooling_of(header) if embeds else None,
            driver=settings.llamacpp_driver,
        )
        job = EMBEDDING if embeds else GENERATION
        refused = job.refused if knows_tools(header) else job.refused | TOOLS
        return Plan(
            served_name=served_name,
            facts=EngineFacts(
                engine="llama.cpp",
                quantization=shape.quantization,
                context_length=context,
                weights_bytes=shape.stored_bytes,
            ),
            shape=shape,
            longest_token=header.longest_token,
            config=msgspec.json.encode(config),
            smoke_path=job.smoke_path,
            smoke_body=job.smoke_body,
            probe_path="/slots",
            routes=job.routes,
            refused=refused | llamacpp_python.REFUSED if one_by_one else refused,
            # xllamacpp's server counts one of several answers only, and writes the logprobs of completions as a chat's.
            chats_only=frozenset({"logprobs"}),
            one_answer=not one_by_one and not embeds,
            formats_as_schemas=True,
            vocabulary=header.vocabulary,
            notes=(
                f"loading {path} with {slots} slots of {context} tokens on {config.threads} threads, "
                f"estimated at {estimate(shape, demand)}",
            ),
        )

    def preload(self) -> None:
        """Import the native library."""
        with contextlib.suppress(ModuleNotFoundError):  # it may be the other driver that is here
            import xllamacpp  # noqa: F401

    def serve(self, config: bytes, announce: Announce) -> None:
        """Load the model and serve; the process ends by a signal, never by taking the server down."""
        wanted = msgspec.json.decode(config, type=ChildConfig)
        if wanted.driver == LLAMA_CPP_PYTHON:
            llamacpp_python.serve(wanted, announce)
            return
        import xllamacpp

        before = _free_memory()
        server = xllamacpp.Server(server_parameters(wanted))
        port = int(server.listening_address.rpartition(":")[2])
        device, held = device_used(before, _free_memory(), wanted.accelerated_bytes)
        announce(Announcement(port=port, version=xllamacpp.__version__, device=device, memory_bytes=held))
        while True:
            signal.pause()

    def error(self, status: int, error: dict[str, Any]) -> Answer:
        """Give a prompt over the context its OpenAI code; the rest is passed on."""
        if error.get("type") == "exceed_context_size_error":
            return context_exceeded(int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0)))
        if found := TOO_LARGE.match(str(error.get("message", ""))):
            return context_exceeded(int(found[1]), int(found[2]))
        return plain_engine_error(status, error)

    def log_line(self, line: str) -> tuple[int, str]:
        """Take llama.cpp's own level from the line."""
        found = LOG_LINE.match(line)
        if found is None:
            return logging.ERROR if LOG_FATAL.match(line) else logging.DEBUG, line
        return logging.DEBUG if LOG_IGNORED.search(found[2]) else LOG_LEVELS[found[1]], found[2]


def _header_of(path: Path) -> Header:
    try:
        return read_header(path)
    except GGUFError as error:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, str(error)) from error
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, message) from error


def _options_of_driver(settings: Settings) -> dict[str, str]:
    """Refuse what llama-cpp-python has not."""
    for name, given in (("EXTRA_ARGS", settings.extra_args), ("MODEL_TASK", settings.model_task is Task.EMBED)):
        if given:
            raise LoadFailure(
                LoadError.INVALID_MODEL_CONFIG,
                f"{name}: the driver llama-cpp-python has no options and no embeddings; set LLAMACPP_DRIVER=xllamacpp",
            )
    return {}


def _free_memory() -> dict[str, int]:
    """Give the free memory of each accelerator that llama.cpp has found, by its name for it."""
    import xllamacpp

    devices = xllamacpp.get_device_info()
    return {device["name"]: device["memory_free"] for device in devices if device["type"].name in ACCELERATORS}


def device_used(before: Mapping[str, int], after: Mapping[str, int], weights: int) -> tuple[str, int | None]:
    """Give what a model was loaded to, and how much memory of accelerators it took.

    llama.cpp tells by log lines only where the layers went, and falls back to the CPU without an error when a driver or
    a library is missing; but weights that are on an accelerator have taken its memory.
    """
    taken = {name: free - after.get(name, free) for name, free in before.items()}
    used = sorted(name for name, size in taken.items() if size > 0)
    total = sum(taken[name] for name in used)
    return ("+".join(used), total) if weights and used and total >= weights // 2 else (CPU, None)


def server_parameters(wanted: ChildConfig) -> Any:
    """Write the parameters of xllamacpp's server; the benchmark uses them too, so that both sides run the same."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = wanted.path
    parameters.model_alias = {wanted.alias}
    parameters.n_ctx = wanted.context * wanted.slots  # divided among the slots
    parameters.n_parallel = wanted.slots
    parameters.cpuparams.n_threads = wanted.threads
    parameters.cpuparams_batch.n_threads = wanted.threads
    parameters.hostnames = [LOOPBACK]
    parameters.port = 0
    parameters.verbosity = 3 if wanted.verbose else 2
    parameters.ui = False
    # Both would take memory that no estimate knows of: up to 8 GiB of finished prompts, and copies of windows.
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False
    parameters.n_ctx_checkpoints = CHECKPOINTS
    # What is asked for is what is made: fitting to free memory would silently shorten the context.
    parameters.fit_params = False
    if wanted.pooling is not None:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{wanted.pooling}"]
        parameters.n_batch = parameters.n_ubatch = wanted.context
        # With a cache for each slot, prompts of several slots are computed in pieces of equal length, and the mean is
        # that of the last piece only.
        parameters.kv_unified = True
    if wanted.gpu_layers is not None:
        parameters.n_gpu_layers = wanted.gpu_layers
    set_options(parameters, wanted.options)
    return parameters


ENGINE = LlamaCpp()
