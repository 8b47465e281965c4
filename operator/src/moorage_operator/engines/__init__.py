"""What the operator knows of each engine. Adding one: a module here, and a line in `ENGINES`."""

import json
from collections.abc import Mapping
from typing import Final

from moorage_operator.api.engines import Framework
from moorage_operator.api.parameters import Parameters
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.engines import llamacpp, transformers, vllm
from moorage_operator.engines.base import Engine

ENGINES: Final[Mapping[Framework, Engine]] = {
    Framework.LLAMACPP: llamacpp.ENGINE,
    Framework.TRANSFORMERS: transformers.ENGINE,
    Framework.VLLM: vllm.ENGINE,
}


def environment(model: InferenceModel, model_path: str) -> dict[str, str]:
    """The settings of the runtime for `model`, whose files are mounted at `model_path`; sorted by name.

    The variables of `spec.env` are not among them: no name is in both.
    """
    spec = model.spec
    values = {
        "MODEL_BACKEND": spec.framework.value,
        "MODEL_PATH": model_path,
        "MODEL_NAME": model.served_name,
        "MAX_CONCURRENT_REQUESTS": str(spec.max_concurrency),
        **({"MAX_INPUT_TOKENS": str(spec.context_length)} if spec.context_length else {}),
        **({"MODEL_QUANTIZATION": spec.quantization} if spec.quantization else {}),
        **({"EXTRA_ARGS": json.dumps(sorted(spec.extra_args))} if spec.extra_args else {}),
        **_request_defaults(spec.parameters),
        **ENGINES[spec.framework].settings(spec),
    }
    return dict(sorted(values.items()))


def _request_defaults(parameters: Parameters | None) -> dict[str, str]:
    """The setting of what requests get that leave it out, by the names of the fields of requests."""
    given = parameters.model_dump(exclude_none=True) if parameters else {}
    return {"REQUEST_DEFAULTS": json.dumps(given)} if given else {}
