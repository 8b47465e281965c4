"""Chooses the engine of a spec and says what every engine's container gets. Pure.

An engine is a function from the spec to environment settings of its runtime image; what all have in common is here.
"""

from collections.abc import Callable, Mapping
from typing import Final

from moorage_operator.api.v1alpha1 import Framework, InferenceModel, InferenceModelSpec
from moorage_operator.engines import llamacpp, transformers, vllm

Environment = Mapping[str, str]

ENGINES: Final[Mapping[Framework, Callable[[InferenceModelSpec], Environment]]] = {
    Framework.LLAMACPP: llamacpp.environment,
    Framework.TRANSFORMERS: transformers.environment,
    Framework.VLLM: vllm.environment,
}


def environment(model: InferenceModel, model_path: str) -> dict[str, str]:
    """The settings of the runtime for `model`, whose files are mounted at `model_path`; sorted by name."""
    spec = model.spec
    values = {
        "MODEL_BACKEND": spec.framework.value,
        "MODEL_PATH": model_path,
        "MODEL_NAME": model.served_name,
        "MAX_CONCURRENT_REQUESTS": str(spec.max_concurrency),
        **({"MAX_INPUT_TOKENS": str(spec.context_length)} if spec.context_length else {}),
        **({"MODEL_QUANTIZATION": spec.quantization} if spec.quantization else {}),
        **ENGINES[spec.framework](spec),
    }
    return dict(sorted(values.items()))
