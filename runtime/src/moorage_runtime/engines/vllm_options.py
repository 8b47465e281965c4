"""The options of vLLM that EXTRA_ARGS may hold: what the value of each may be; read in the front, parsed by vLLM.

A closed list: vLLM has some 300, which load other models and plugins, run code, open ports or write requests into
logs. The operator lets the same ones through (operator/…/api/engines.py); a test compares the two.
"""

import re
from collections.abc import Mapping
from typing import Final

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure

_NUMBER: Final = "[1-9][0-9]{0,6}"
_NAME: Final = "[a-z0-9_]{1,40}"

OPTIONS: Final[Mapping[str, str]] = {
    "--attention-backend": "[A-Z0-9_]{1,40}",
    "--block-size": "8|16|32|64|128",
    "--cpu-offload-gb": _NUMBER,
    "--dtype": "auto|half|float16|bfloat16|float|float32",
    "--enable-auto-tool-choice": "",
    "--enable-chunked-prefill": "",
    "--enable-prefix-caching": "",
    "--enforce-eager": "",
    "--generation-config": "auto|vllm",
    "--kv-cache-dtype": "auto|bfloat16|fp8|fp8_e4m3|fp8_e5m2",
    "--max-num-batched-tokens": _NUMBER,
    "--no-enable-chunked-prefill": "",
    "--no-enable-prefix-caching": "",
    "--reasoning-parser": _NAME,
    "--seed": _NUMBER,
    "--tokenizer-mode": "auto|hf|mistral",
    "--tool-call-parser": _NAME,
}
"""The pattern of each value; empty for an option without one."""

TOGETHER: Final = frozenset({"--enable-auto-tool-choice", "--tool-call-parser"})
"""Options of which each is nothing without the other."""


def read_options(arguments: tuple[str, ...] | None) -> dict[str, str]:
    """Give the options with their values; raise LoadFailure for one that is unknown, wrong, there twice, or alone."""
    found: dict[str, str] = {}
    for argument in arguments or ():
        name, sign, value = argument.partition("=")
        if name not in OPTIONS:
            _refuse(argument, f"it is not one of {', '.join(OPTIONS)}")
        if name in found:
            _refuse(argument, "it is there twice")
        pattern = OPTIONS[name]
        if not pattern and sign:
            _refuse(argument, "it has no value")
        if pattern and not re.fullmatch(pattern, value):
            _refuse(argument, f"its value is {_in_words(pattern)}")
        found[name] = value
    if len(TOGETHER & found.keys()) == 1:
        there, missing = sorted(TOGETHER, key=lambda name: name not in found)
        _refuse(there, f"{missing} has to be there too")
    return found


def has_tools(options: Mapping[str, str]) -> bool:
    """Say whether requests may have tools: only a parser finds the calls in what a model writes."""
    return options.keys() >= TOGETHER


def command_line(options: Mapping[str, str]) -> list[str]:
    """Write the options as vLLM reads them."""
    return [f"{name}={value}" if OPTIONS[name] else name for name, value in options.items()]


def _in_words(pattern: str) -> str:
    if pattern == _NUMBER:
        return "a number from 1 to 9999999"
    return f"one of {pattern.replace('|', ', ')}" if "|" in pattern else f"a name: {pattern}"


def _refuse(argument: str, problem: str) -> None:
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG,
        f"the option {argument[:100]} (spec.extraArgs, EXTRA_ARGS) is not possible with vLLM: {problem}",
    )
