"""The options of llama.cpp that EXTRA_ARGS may hold: what each is, read in the front, set in the child.

A closed list: llama.cpp has many more, which read files, load libraries or change what the estimate of memory rests on.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

MAX_THREADS: Final = 1024


def _choice(*words: str) -> Callable[[str], str | None]:
    return lambda value: None if value in words else f"its value is one of {', '.join(words)}"


def _threads(value: str) -> str | None:
    right = value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MAX_THREADS
    return None if right else f"its value is a number from 1 to {MAX_THREADS}"


def _nothing(value: str) -> str | None:
    return None if value == "" else "it has no value"


OPTIONS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "--flash-attn": _choice("on", "off", "auto"),
    "--no-kv-offload": _nothing,
    "--no-mmap": _nothing,
    "--no-op-offload": _nothing,
    "--numa": _choice("distribute", "isolate", "numactl"),
    "--split-mode": _choice("none", "layer", "row"),
    "--threads-batch": _threads,
}
"""What is wrong with the value of each, or None."""


def read_options(arguments: tuple[str, ...] | None) -> dict[str, str]:
    """Give the options with their values; raise LoadFailure for one that is unknown, wrong, or there twice."""
    found: dict[str, str] = {}
    for argument in arguments or ():
        name, sign, value = argument.partition("=")
        if name not in OPTIONS:
            _refuse(argument, f"it is not one of {', '.join(OPTIONS)}")
        if name in found:
            _refuse(argument, "it is there twice")
        problem = "it has no value" if sign and not value else OPTIONS[name](value)
        if problem is not None:
            _refuse(argument, problem)
        found[name] = value
    return found


def set_options(parameters: Any, options: Mapping[str, str]) -> None:
    """Set them in the parameters of xllamacpp's server."""
    import xllamacpp

    for name, value in options.items():
        match name:
            case "--flash-attn":
                kinds = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
                parameters.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{kinds[value]}"]
            case "--no-kv-offload":
                parameters.no_kv_offload = True
            case "--no-mmap":
                parameters.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
            case "--no-op-offload":
                parameters.no_op_offload = True
            case "--numa":
                parameters.numa = xllamacpp.ggml_numa_strategy[f"GGML_NUMA_STRATEGY_{value.upper()}"]
            case "--split-mode":
                parameters.split_mode = xllamacpp.llama_split_mode[f"LLAMA_SPLIT_MODE_{value.upper()}"]
            case "--threads-batch":
                parameters.cpuparams_batch.n_threads = int(value)
            case _:
                raise AssertionError(name)


def _refuse(argument: str, problem: str) -> None:
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG,
        f"the option {argument[:100]} (spec.extraArgs, EXTRA_ARGS) is not possible with llama.cpp: {problem}",
    )
