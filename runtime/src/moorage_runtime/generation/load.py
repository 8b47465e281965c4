"""Loads model and tokenizer, and says what is really in memory afterwards: classes and bytes, not what was asked."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from moorage_common.facts import CPU, LoadError
from moorage_runtime.complete import check_complete
from moorage_runtime.errors import LoadFailure
from moorage_runtime.generation.config import INT8, NF4, ChildConfig
from moorage_runtime.generation.request import Sampling

CLASSES: Final = {"Linear8bitLt": INT8, "Linear4bit": NF4}
"""Classes of bitsandbytes' layers, by what their weights then are."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a loaded model has."""

    quantization: str
    dtype: str
    weights_bytes: int
    device: str
    memory_bytes: int | None
    """Memory that it takes of an accelerator."""


def load(config: ChildConfig) -> tuple[Any, Any]:
    """Give the model and its tokenizer; only safetensors are read, and no code of the model's is run."""
    device = torch.device("cuda:0") if torch.cuda.is_available() else torch.device(CPU)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.path, **safe)
        model, loading = AutoModelForCausalLM.from_pretrained(
            config.path,
            **safe,
            use_safetensors=True,
            dtype=torch.float32 if config.wide else "auto",
            device_map={"": device},
            # On the CPU it was half again as fast over eight requests as torch's own attention.
            attn_implementation="eager" if device.type == CPU else "sdpa",
            output_loading_info=True,
            **_quantization(config),
        )
    except ImportError as error:
        raise LoadFailure(LoadError.ENGINE_FAILED, f"a package is missing for this model: {error}") from error
    except torch.OutOfMemoryError as error:
        raise LoadFailure(LoadError.OUT_OF_MEMORY, str(error)) from error
    check_complete(loading)
    if not (config.low_memory or config.wide) and device.type == CPU:
        _copy(model)
    _give_back()
    return model.eval(), tokenizer


def found(model: Any) -> Found:
    """Look at what was loaded."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    classes = Counter(CLASSES[name] for name in _classes(model) if name in CLASSES)
    floats = Counter[str]()
    for _, tensor in tensors:
        if tensor.is_floating_point():
            floats[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    devices = sorted({tensor.device.type for _, tensor in tensors})
    on_accelerator = devices != [CPU]
    return Found(
        quantization=classes.most_common(1)[0][0] if classes else _packed(model),
        dtype=floats.most_common(1)[0][0] if floats else "none",
        weights_bytes=sum(tensor.numel() * tensor.element_size() for _, tensor in tensors) + _scales(model),
        device="+".join(devices),
        memory_bytes=torch.cuda.memory_reserved() if on_accelerator else None,
    )


def ends(model: Any, tokenizer: Any) -> list[int]:
    """Give the tokens with which a text ends: the model's and its tokenizer's."""
    numbers = {tokenizer.eos_token_id}
    told = model.generation_config.eos_token_id
    numbers |= set(told if isinstance(told, list) else [told])
    return sorted(number for number in numbers if isinstance(number, int) and number >= 0)


def defaults(model: Any) -> Sampling:
    """Give how requests are sampled that do not say it: as the model's makers did, else as OpenAI's API does."""
    made = model.generation_config
    if not made.do_sample:
        return Sampling()
    return Sampling(
        temperature=_number(made.temperature, 1.0),
        top_p=_number(made.top_p, 1.0),
        top_k=int(_number(made.top_k, 0)),
        min_p=_number(made.min_p, 0.0),
        repeat_penalty=_number(made.repetition_penalty, 1.0),
    )


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else default


def _quantization(config: ChildConfig) -> dict[str, BitsAndBytesConfig]:
    """Give the argument that asks for it: without a word the files' own scheme holds, and None would undo that too."""
    if config.quantize == INT8:
        wanted = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=config.int8_threshold)
    elif config.quantize == NF4:
        wanted = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    else:
        return {}
    return {"quantization_config": wanted}


def _give_back() -> None:
    """Give the kernel what loading has left: quantizing goes through copies of the weights at full length."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # musl has none
        ctypes.CDLL(None).malloc_trim(0)


def _copy(model: Any) -> None:
    """Copy the weights into memory of our own: they were pages of the mapped file."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _classes(model: Any) -> list[str]:
    """Give the class of each layer whose weight is really packed: others may have the class, but the old numbers."""
    return [
        type(module).__name__
        for module in model.modules()
        if isinstance(weight := getattr(module, "weight", None), torch.Tensor) and not weight.is_floating_point()
    ]


def _packed(model: Any) -> str:
    """Name the scheme of weights that came packed; `none` where they are plain numbers."""
    made = getattr(model.config, "quantization_config", None)
    method = getattr(made, "quant_method", None) if made is not None else None
    packed = any(
        not tensor.is_floating_point() and tensor.dim() > 1
        for _, tensor in (*model.named_parameters(), *model.named_buffers())
    )
    return str(getattr(method, "value", method)) if packed and method is not None else "none"


def _scales(model: Any) -> int:
    """Give the bytes of the scales that bitsandbytes keeps beside its weights; they are no parameters of a module."""
    parameters = list(model.parameters())
    states = (getattr(parameter, "quant_state", None) for parameter in parameters)
    scales = [state.absmax for state in states if state is not None]
    scales += [scale for parameter in parameters if (scale := getattr(parameter, "SCB", None)) is not None]
    return sum(scale.numel() * scale.element_size() for scale in scales)
