"""Builds the init container that fetches a model's files before its engine starts. Pure.

It is the runtime's own image with another command, as restricted as the engine's container; the keys of the model's
Secret become variables here and nowhere else. They are named one by one: of a Secret that holds something else, such as
a service account's token, nothing is taken. All are optional, so what is missing is the fetcher's to explain.
"""

import json
from typing import Any, Final

from moorage_common.labels import RUNTIME_PORT
from moorage_operator.api.source import Source
from moorage_operator.api.v1alpha1 import InferenceModel, Resources
from moorage_operator.desired.drift import quantity
from moorage_operator.desired.storage import MODELS_DIR, VOLUME_NAME, room

FETCH_CONTAINER: Final = "fetch"
"""The init container that fetches a model; injected ones are no download."""

KEYS: Final = {
    "hf": ("HF_TOKEN",),
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ),
}
"""The keys of a Secret that each kind of address may use."""

LEAST_MEMORY: Final = "256Mi"
LEAST_CPU: Final = "100m"


def fetch_container(model: InferenceModel, image: str, pull_policy: str) -> dict[str, Any]:
    """The container; only for a source that is fetched."""
    source = model.spec.source
    return {
        "name": FETCH_CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": ["fetch"],
        "env": [*_settings(model), *_secrets(source)],
        "resources": _resources(model.spec.resources, source),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": VOLUME_NAME, "mountPath": MODELS_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own volume
        ],
    }


def _resources(asked: Resources, source: Source) -> dict[str, Any]:
    """As much as the engine's container has, or more where that is too little to fetch with.

    A pod counts as the larger of its init containers and the others, so it costs nothing; and a LimitRange that suits
    the one suits the other.
    """
    memory = max(str(asked.memory), LEAST_MEMORY, key=quantity)
    cpu = max(str(asked.cpu), LEAST_CPU, key=quantity)
    limits = {"memory": memory}
    if asked.cpu_limit is not None:
        limits["cpu"] = str(asked.cpu_limit)
        cpu = min(cpu, limits["cpu"], key=quantity)
    disk = {"ephemeral-storage": room(source)} if source.size is not None else {}
    return {"requests": {"cpu": cpu, "memory": memory, **disk}, "limits": limits}


def _settings(model: InferenceModel) -> list[dict[str, Any]]:
    source, spec = model.spec.source, model.spec
    values = {
        "HOME": "/tmp",  # noqa: S108
        "MODEL_BACKEND": spec.framework.value,
        **({"MODEL_FILES": json.dumps(sorted(source.files))} if source.files else {}),
        "MODEL_FOLDER": MODELS_DIR,
        **({"MODEL_QUANTIZATION": spec.quantization} if spec.quantization else {}),
        **({"MODEL_SHA256": source.sha256} if source.sha256 else {}),
        "MODEL_SIZE_LIMIT": str(int(quantity(room(source)))),
        "MODEL_SOURCE": source.uri,
        "PORT": str(RUNTIME_PORT),
        **({"SECRET_NAME": source.secret_name} if source.secret_name else {}),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _secrets(source: Source) -> list[dict[str, Any]]:
    if not source.secret_name:
        return []
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": source.secret_name, "key": key, "optional": True}}}
        for key in KEYS.get(source.scheme, ())
    ]
