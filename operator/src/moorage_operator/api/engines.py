"""What a spec may say of each engine: its block, its precisions, its options and its environment variables.

All of it is lists of what is allowed. An option or a variable that is on no list cannot be set, so that nobody reaches
remote code, files, other models, the address that a server listens on, or GPUs that were not asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from moorage_operator.api.schema import ApiModel, at_least, matching

MAX_EXTRA_ARGS: Final = 32
MAX_VARIABLES: Final = 32

_NUMBER: Final = "[1-9][0-9]{0,6}"
_NAME: Final = "[a-z0-9_]{1,40}"
_CAPITALS: Final = "[A-Z0-9_]{1,40}"


class Framework(StrEnum):
    """The engine that runs a model."""

    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    TRANSFORMERS = "transformers"


GGUF_TYPES: Final = (
    *("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"),
    *("q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"),
    *("iq4_nl", "iq4_xs"),
)
TENSOR_TYPES: Final = ("none", "gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes-8bit", "bitsandbytes-4bit")
VLLM_TYPES: Final = ("none", "gptq", "awq", "fp8", "compressed-tensors")
"""bitsandbytes left vLLM with version 0.32."""
QUANTIZATIONS: Final = (*TENSOR_TYPES, *GGUF_TYPES)


class LlamaCppSettings(ApiModel):
    """Settings of llama.cpp."""

    gpu_layers: int | None = Field(
        None,
        description="Layers that are computed on the GPU, the rest on the CPU; absent means all. Needs gpu.count.",
        examples=[32],
        ge=0,
        le=1024,
    )
    threads: int | None = Field(
        None, description="Threads that compute; absent means one for each CPU in reach.", examples=[4], ge=1, le=256
    )


class VllmSettings(ApiModel):
    """Settings of vLLM."""

    tensor_parallel_size: int | None = Field(
        None,
        description="GPUs that one copy of the model is split over; must divide gpu.count. Absent means gpu.count.",
        examples=[2],
        ge=1,
        le=64,
    )
    gpu_memory_utilization: float | None = Field(
        None,
        description="Share of each GPU's memory for weights and KV cache, from 0.05; absent leaves it to the engine.",
        examples=[0.9],
        ge=0,
        le=1,
        json_schema_extra=at_least("0.05", "0.9"),
    )
    max_num_seqs: int | None = Field(
        None,
        description="Sequences in one step of the engine; absent leaves it to the engine. See maxConcurrency too.",
        examples=[256],
        ge=1,
        le=4096,
    )


class TransformersSettings(ApiModel):
    """Settings of transformers."""

    int8_threshold: float | None = Field(
        None,
        description=(
            "Activations above it stay in 16 bit; absent means 6.0. Only with quantization bitsandbytes-8bit."
        ),
        examples=[6.0],
        ge=0,
        le=1000,
    )
    compile: bool = Field(False, description="true compiles the model before it is ready.", examples=[True])


class Variable(ApiModel):
    """An environment variable of the engine's container."""

    name: str = Field(
        description="Name, one of those that are allowed for the framework.",
        examples=["LOG_LEVEL"],
        min_length=1,
        max_length=64,
        json_schema_extra=matching(
            "[A-Za-z_][A-Za-z0-9_]*", "must be a name of letters, digits and '_', for example LOG_LEVEL"
        ),
    )
    value: str = Field(
        description="Value: letters, digits and . _ : , = + - only.",
        examples=["DEBUG"],
        min_length=1,
        max_length=256,
        json_schema_extra=matching(
            "[A-Za-z0-9._:,=+-]*",
            "must be of letters, digits and the characters . _ : , = + - only: no paths, no spaces, no $(NAME); "
            "for example DEBUG",
        ),
    )


ExtraArg = Annotated[
    str,
    Field(
        description="One option, --NAME or --NAME=VALUE.",
        examples=["--flash-attn=on"],
        min_length=3,
        max_length=128,
        json_schema_extra=matching(
            "--[a-z][a-z0-9-]*(=[A-Za-z0-9._-]+)?",
            "must be one option, --NAME or --NAME=VALUE, without spaces and quotes, for example --flash-attn=on",
        ),
    ),
]


@dataclass(frozen=True)
class EngineApi:
    """What a spec may say of one engine. `options` maps an option to the pattern of its value, "" for none."""

    block: type[ApiModel]
    quantizations: tuple[str, ...]
    quantizations_in_words: str
    options: Mapping[str, str]
    variables: tuple[str, ...]

    def options_in_words(self) -> list[str]:
        """The options as a message shows them."""
        shown = {"": "", _NUMBER: "=NUMBER", _NAME: "=NAME", _CAPITALS: "=NAME"}
        return [f"--{name}{shown.get(value, f'={value}')}" for name, value in sorted(self.options.items())]


_COMMON_VARIABLES: Final = ("ENABLE_DETAILED_METRICS", "LOG_LEVEL", "OMP_PLACES", "OMP_PROC_BIND")
_TORCH_VARIABLES: Final = ("OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")

ENGINES: Final[Mapping[Framework, EngineApi]] = {
    Framework.LLAMACPP: EngineApi(
        block=LlamaCppSettings,
        quantizations=GGUF_TYPES,
        quantizations_in_words="a GGUF type such as q4_k_m or q8_0",
        options={
            "flash-attn": "on|off|auto",
            "no-kv-offload": "",
            "no-mmap": "",
            "no-op-offload": "",
            "numa": "distribute|isolate|numactl",
            "split-mode": "none|layer|row",
            "threads-batch": _NUMBER,
        },
        variables=(
            *_COMMON_VARIABLES,
            *("GGML_CUDA_DISABLE_GRAPHS", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "GGML_CUDA_NO_PINNED"),
        ),
    ),
    Framework.TRANSFORMERS: EngineApi(
        block=TransformersSettings,
        quantizations=TENSOR_TYPES,
        quantizations_in_words=f"one of {', '.join(TENSOR_TYPES)}",
        options={},
        variables=(
            *_COMMON_VARIABLES,
            *_TORCH_VARIABLES,
            *("LOW_CPU_MEM_USAGE", "TOKENIZERS_PARALLELISM", "TORCH_NUM_THREADS"),
        ),
    ),
    Framework.VLLM: EngineApi(
        block=VllmSettings,
        quantizations=VLLM_TYPES,
        quantizations_in_words=f"one of {', '.join(VLLM_TYPES)}",
        options={
            "attention-backend": _CAPITALS,
            "block-size": "8|16|32|64|128",
            "cpu-offload-gb": _NUMBER,
            "dtype": "auto|half|float16|bfloat16|float|float32",
            "enable-auto-tool-choice": "",
            "enable-chunked-prefill": "",
            "enable-prefix-caching": "",
            "enforce-eager": "",
            "generation-config": "auto|vllm",
            "kv-cache-dtype": "auto|bfloat16|fp8|fp8_e4m3|fp8_e5m2",
            "max-num-batched-tokens": _NUMBER,
            "no-enable-chunked-prefill": "",
            "no-enable-prefix-caching": "",
            "reasoning-parser": _NAME,
            "seed": _NUMBER,
            "tokenizer-mode": "auto|hf|mistral",
            "tool-call-parser": _NAME,
        },
        variables=(
            *_COMMON_VARIABLES,
            *_TORCH_VARIABLES,
            *("NCCL_CUMEM_ENABLE", "NCCL_DEBUG", "NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL"),
            *("NCCL_SHM_DISABLE", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND"),
            *("VLLM_LOGGING_LEVEL", "VLLM_USE_FLASHINFER_SAMPLER"),
        ),
    ),
}
