"""What the operator knows of each engine. Adding one: a module here, and a line in `ENGINES`."""

import json
from collections.abc import Mapping
from typing import Final

from moorage_common.tasks import Task
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
        "MAX_CONCURRENT_REQUESTS": str(spec.concurrency),
        # Only where it is not the default: models that run are not started anew for a name that says nothing.
        **({"MODEL_TASK": spec.task.value} if spec.task is not Task.GENERATE else {}),
        **({"MAX_INPUT_TOKENS": str(spec.context_length)} if spec.context_length else {}),
        **({"MODEL_QUANTIZATION": spec.quantization} if spec.quantization else {}),
        **({"EXTRA_ARGS": json.dumps(sorted(spec.extra_args))} if spec.extra_args else {}),
        **_unloading(spec.unload_after_seconds),
        **_request_defaults(spec.parameters),
        **ENGINES[spec.framework].settings(spec),
    }
    return dict(sorted(values.items()))


def _unloading(seconds: int | None) -> dict[str, str]:
    return {"MODEL_UNLOAD_ENABLED": "true", "MODEL_IDLE_TIMEOUT": str(seconds)} if seconds else {}


def _request_defaults(parameters: Parameters | None) -> dict[str, str]:
    """The setting of what requests get that leave it out, by the names of the fields of requests."""
    given = parameters.model_dump(exclude_none=True) if parameters else {}
    return {"REQUEST_DEFAULTS": json.dumps(given)} if given else {}
