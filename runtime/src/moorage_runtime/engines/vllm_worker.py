"""What a loaded model really is: vLLM adds this class to its workers (`--worker-extension-cls`), the server asks them.

The config says what was meant; only the modules and the types of the numbers say what came of it.
"""

from collections import Counter
from typing import Any


class LoadedFacts:
    """Methods that vLLM's workers get."""

    def moorage_facts(self) -> dict[str, Any]:
        """Give the device, bytes of parameters by their type, and how many modules have each way to multiply."""
        import torch

        worker: Any = self
        modules = list(worker.model_runner.get_model().modules())
        tensors = {tensor.data_ptr(): tensor for module in modules for tensor in module.parameters(recurse=False)}
        sizes = Counter[str]()
        for tensor in tensors.values():
            sizes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel() * tensor.element_size()
        device = str(worker.device.type)
        return {
            "device": device,
            "memory": torch.cuda.memory_reserved(worker.device) if device == "cuda" else None,
            "bytes": dict(sizes),
            "methods": dict(Counter(type(method).__name__ for method in map(_method, modules) if method is not None)),
        }


def _method(module: Any) -> Any:
    return getattr(module, "quant_method", None)
