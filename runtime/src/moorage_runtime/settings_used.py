"""Which settings a backend does not use: they are warned of at the start, where they were set.

A warning and no error: users of the small-model server set all names at once, whichever backend they choose.
"""

from collections.abc import Mapping
from typing import Final

from moorage_common.tasks import Task
from moorage_runtime.settings import Backend, Settings

_GENERATE: Final = {(backend, Task.GENERATE) for backend in Backend}
_TRANSFORMERS_GENERATE: Final = {(Backend.TRANSFORMERS, Task.GENERATE)}
_TRANSFORMERS_EMBED: Final = {(Backend.TRANSFORMERS, Task.EMBED)}
_TRANSFORMERS: Final = _TRANSFORMERS_GENERATE | _TRANSFORMERS_EMBED
_LLAMACPP: Final = {(Backend.LLAMACPP, task) for task in Task}
_VLLM: Final = {(Backend.VLLM, task) for task in Task}

USERS: Final[Mapping[str, set[tuple[Backend, Task]]]] = {
    "llama_threads": _LLAMACPP,
    "llama_gpu_layers": _LLAMACPP,
    "llamacpp_driver": _LLAMACPP,
    "max_batch_size": _TRANSFORMERS_EMBED,
    "max_wait_ms": _TRANSFORMERS_EMBED,
    "enable_batching": _TRANSFORMERS_EMBED,
    "image_url_hosts": _TRANSFORMERS_EMBED,
    "torch_num_threads": _TRANSFORMERS,
    "compile_model": _TRANSFORMERS_GENERATE,
    "int8_threshold": _TRANSFORMERS_GENERATE,
    "low_cpu_mem_usage": _TRANSFORMERS_GENERATE,
    "tensor_parallel_size": _VLLM,
    "gpu_memory_utilization": _VLLM,
    "max_num_seqs": _VLLM,
    "vllm_cpu_kvcache_space": _VLLM,
    "model_quantization": _LLAMACPP | _TRANSFORMERS | _VLLM,
    "extra_args": _LLAMACPP | _TRANSFORMERS_GENERATE | _VLLM,  # transformers: to refuse them
    "request_defaults": _GENERATE,
}
"""Who uses a setting; what is not here is used by all."""


def unused(environment: Mapping[str, str], settings: Settings) -> list[str]:
    """Give the names that were set and are not used by the backend, for the task, that the settings choose."""
    chosen = (settings.model_backend, settings.model_task)
    return [field.upper() for field, users in USERS.items() if environment.get(field.upper()) and chosen not in users]


def warning(environment: Mapping[str, str], settings: Settings) -> str | None:
    """Say which settings were set in vain; None where each has its use."""
    names = unused(environment, settings)
    if not names:
        return None
    said = ", ".join(f"{name}={environment[name][:100]}" for name in names)
    chosen = f"MODEL_BACKEND={settings.model_backend.value} with MODEL_TASK={settings.model_task.value}"
    return f"{chosen} does not use these settings, which are set: {said}"
