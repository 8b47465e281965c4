"""What is asked of a model, the terms of its memory, and what the formulas of several engines share. Pure."""

from typing import Final, NamedTuple

from moorage_common.shape import Shape

MIB: Final = 1024**2
GIB: Final = 1024**3

CUDA_CONTEXT: Final = 512 * MIB
"""What a process takes of a GPU before it has allocated anything: context, kernels, libraries. An assumption, on the
safe side; drivers and devices differ, and none was at hand to measure."""

KV_BYTES: Final = 2
"""Keys and values are kept as 16-bit floats by all engines, as long as nobody asks for less."""


class Demand(NamedTuple):
    """What is asked: the engine by its framework, `requests` at a time of `context` tokens each, on `gpus` or, with
    none, on the CPU; `quantization` in the words of the spec, None meaning as the files are. `gpu_layers` are those
    that are on the GPUs, None meaning all; `options` are the engine's own, each --NAME or --NAME=VALUE."""

    engine: str
    context: int
    requests: int
    quantization: str | None = None
    gpus: int = 0
    gpu_layers: int | None = None
    options: tuple[str, ...] = ()
    embeds: bool = False
    """Embeddings are asked for: a prompt is computed in one piece."""

    def option(self, name: str) -> str | None:
        """The value of an option, empty for one that has none; None when it is not set."""
        found = (option.partition("=") for option in self.options)
        return next((value for key, _, value in found if key == f"--{name}"), None)


class Estimate(NamedTuple):
    """Bytes by purpose."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        """Everything together."""
        return self.weights + self.kv_cache + self.overhead

    def __str__(self) -> str:
        """Write the sum with its terms."""
        return (
            f"{mib(self.total)} (weights {mib(self.weights)}, KV cache {mib(self.kv_cache)}, "
            f"overhead {mib(self.overhead)})"
        )


def mib(size: int) -> str:
    """Write bytes as MiB, rounded up.

    >>> mib(3 * 1024 * 1024)
    '3 MiB'
    """
    return f"{-(-size // MIB)} MiB"


def gib(size: int) -> str:
    """Write bytes as GiB, or as MiB where that says more.

    >>> gib(1536 * 1024 * 1024), gib(200 * 1024 * 1024)
    ('1.5 GiB', '200 MiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB else mib(size)


def round_up(count: int, step: int) -> int:
    """The next multiple of `step`.

    >>> round_up(257, 256), round_up(256, 256)
    (512, 256)
    """
    return -(-count // step) * step


_WHILE_LOADING: Final = {
    # Bytes of one number: 4 bits and a 32-bit scale for each block of 64 (bitsandbytes, functional.quantize_4bit); 8
    # bits and a scale for each row, which is next to nothing (LLM.int8; vLLM's fp8 by tensor).
    "bitsandbytes-4bit": (9, 16),
    "bitsandbytes-8bit": (1, 1),
    "fp8": (1, 1),
}


def safetensors_weights(shape: Shape, quantization: str | None, *, most_bytes: int = 4, least_bytes: int = 0) -> int:
    """Bytes of the weights that an engine makes of safetensors files.

    Files that are quantized stay as they are. Others may be quantized while loading: then the matrices of the layers
    shrink, and embeddings, norms and output stay. Numbers that are not quantized have `least_bytes` to `most_bytes`.
    """
    parameters, linear = shape.parameters, min(shape.linear_parameters, shape.parameters)
    if not parameters or shape.quantization not in (None, "none"):
        return shape.stored_bytes
    stored = max(min(shape.stored_bytes, parameters * most_bytes), parameters * least_bytes)
    if quantization not in _WHILE_LOADING:
        return stored
    bytes_by, numbers = _WHILE_LOADING[quantization]
    return stored * (parameters - linear) // parameters + linear * bytes_by // numbers


def activations(shape: Shape, tokens: int) -> int:
    """Bytes of what one layer computes for `tokens` at a time, in 16 bits: four times the embedding's width (input,
    residual, attention's input and output) and three times the feed-forward width (gate, up and their product)."""
    return tokens * (4 * shape.embedding + 3 * shape.feed_forward) * 2
