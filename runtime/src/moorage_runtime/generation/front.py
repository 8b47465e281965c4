"""The plan for a model that generates: checked before transformers is asked to load anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from moorage_common.estimate import DEFAULT_CONTEXT, Demand, estimate, mib
from moorage_common.facts import EngineFacts, LoadError
from moorage_runtime import machine
from moorage_runtime.engines.base import Plan
from moorage_runtime.errors import CONCURRENCY_NAMES, CONTEXT_NAMES, MEMORY_NAMES, QUANTIZATION_NAMES, LoadFailure
from moorage_runtime.generation.config import INT8, NF4, WHILE_LOADING, ChildConfig
from moorage_runtime.hf_folder import HFFolder, check_folder, context_length

if TYPE_CHECKING:
    from moorage_runtime.settings import Settings

WORDS: Final = {"4bit": NF4, "8bit": INT8}
"""What MODEL_QUANTIZATION may say for short."""

IN_FILES: Final = ("none", "gptq", "awq", "fp8", "compressed-tensors")

NARROW: Final = {"BF16": ("avx512_bf16", "amx_bf16"), "F16": ("avx512_fp16", "amx_fp16")}
"""Types of 16 bits as safetensors files call them, and the instructions of x86 processors that multiply them."""

REFUSED: Final = frozenset(
    {
        "cache_prompt",
        "grammar",
        "json_schema",
        "n_probs",
        "parallel_tool_calls",
        "tool_choice",
        "tools",
        "typical_p",
    }
)
"""Fields that transformers' continuous batching has nothing for. A `response_format` other than text is refused by the
child, because the field itself may be there."""


def plan(settings: Settings) -> Plan:
    """Check folder, quantization, context and memory, in the order in which a person would mend them."""
    folder = check_folder(settings.model_path)
    if settings.extra_args:
        _refuse(folder, f"the option {settings.extra_args[0][:100]} (spec.extraArgs, EXTRA_ARGS): this engine has none")
    if not folder.has_tokenizer:
        raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"{folder.path} holds no tokenizer.json", folder.shape)
    asked = _asked(settings.model_quantization, folder)
    context = context_length(settings.max_input_tokens, folder, default=DEFAULT_CONTEXT)
    demand = Demand("transformers", context, settings.concurrency, quantization=asked)
    _check_memory(folder, demand)
    quantize = asked if asked in WHILE_LOADING and folder.quantization == "none" else None
    wide = demand._replace(options=("--dtype=float32",))
    if quantize is None and _slow_in_16_bits(folder) and _fits(folder, wide):
        demand = wide
    config = ChildConfig(
        path=str(folder.path),
        name=settings.model_name or folder.path.resolve().name,
        context=context,
        slots=settings.concurrency,
        threads=settings.torch_num_threads or machine.usable_cpus(),
        quantize=quantize,
        wide=demand is wide,
        int8_threshold=settings.int8_threshold,
        compile=settings.compile_model,
        low_memory=settings.low_cpu_mem_usage,
        verbose=settings.log_level == "DEBUG",
    )
    return Plan(
        served_name=config.name,
        facts=EngineFacts(
            engine="transformers",
            quantization=config.quantize or folder.quantization,
            context_length=context,
            weights_bytes=folder.shape.stored_bytes,
        ),
        shape=folder.shape,
        config=b"generate\n" + msgspec.json.encode(config),
        smoke_path="/v1/completions",
        smoke_body=b'{"prompt": "Hi", "max_tokens": 1, "temperature": 0}',
        probe_path="/probe",
        # Without a template nobody knows how this model marks who says what.
        routes=frozenset({"/v1/completions"} | ({"/v1/chat/completions"} if folder.has_chat_template else set())),
        refused=REFUSED,
        notes=_notes(config, folder, f"estimated at {estimate(folder.shape, demand)}"),
    )


def _notes(config: ChildConfig, folder: HFFolder, estimated: str) -> tuple[str, ...]:
    how = f"quantized to {config.quantize}" if config.quantize else f"as it is ({folder.quantization})"
    if config.wide:
        how += ", in float32, which is faster on this CPU"
    notes = [
        f"loading {folder.path} {how}, {config.slots} requests of {config.context} tokens on {config.threads} threads, "
        f"{estimated}"
    ]
    if not folder.has_chat_template:
        notes.append("there is no chat template, so there is no /v1/chat/completions")
    return tuple(notes)


def _asked(text: str | None, folder: HFFolder) -> str | None:
    """Give the precision that is asked for, in the words of spec.quantization; refuse what cannot be had."""
    if text is None:
        return None
    asked = WORDS.get(text.lower(), text.lower())
    if asked not in WHILE_LOADING and asked not in IN_FILES:
        names = ", ".join((*IN_FILES, INT8, NF4, *WORDS))
        _refuse(folder, f"{QUANTIZATION_NAMES} asked for is {text}: this engine has {names}")
    if asked != folder.quantization and not (asked in WHILE_LOADING and folder.quantization == "none"):
        _refuse(
            folder,
            f"{QUANTIZATION_NAMES} asked for is {asked}, but the files of {folder.path} have {folder.quantization}",
        )
    return asked


def _slow_in_16_bits(folder: HFFolder) -> bool:
    """Say whether this CPU multiplies the numbers of the files many times slower than float32, as it has to imitate it.

    Measured on an AVX2 machine: a 576 x 1536 matrix by 8 rows took 0.28 ms in float32, 7.9 ms in bfloat16.
    """
    by_type = folder.shape.tensor_bytes
    most = max(by_type, key=lambda name: by_type[name], default="")
    fast = NARROW.get(most)
    return fast is not None and folder.quantization == "none" and not machine.has_accelerator() and machine.lacks(*fast)


def _fits(folder: HFFolder, demand: Demand) -> bool:
    limit = machine.memory_limit()
    return limit is None or estimate(folder.shape, demand).total <= limit.size


def _check_memory(folder: HFFolder, demand: Demand) -> None:
    if machine.has_accelerator():
        return  # its memory holds the model, and torch says so if it cannot
    limit, needed = machine.memory_limit(), estimate(folder.shape, demand)
    if limit is None or needed.total <= limit.size:
        return
    raise LoadFailure(
        LoadError.OUT_OF_MEMORY,
        f"{folder.path} needs about {needed} for {demand.requests} requests of {demand.context} tokens, and "
        f"{limit.source} is {mib(limit.size)}; lower {CONTEXT_NAMES} or {CONCURRENCY_NAMES}, or raise {MEMORY_NAMES} "
        f"to at least {mib(needed.total)}",
        folder.shape,
    )


def _refuse(folder: HFFolder, problem: str) -> None:
    raise LoadFailure(LoadError.INVALID_MODEL_CONFIG, problem, folder.shape)
