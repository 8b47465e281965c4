"""The names, labels and owner of everything that belongs to an InferenceModel. Pure."""

from typing import Any

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, SERVICE_PORT
from moorage_operator.api.v1alpha1 import API_VERSION, KIND, InferenceModel


def selector(model_name: str) -> dict[str, str]:
    """The labels that select the pods of a model; immutable in a Deployment, so they never change."""
    return {MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: model_name}


def labels(model: InferenceModel) -> dict[str, str]:
    """The labels of every object of a model."""
    return {
        "app.kubernetes.io/component": "model",
        "app.kubernetes.io/instance": model.metadata.name,
        "app.kubernetes.io/name": model.spec.framework.value,
        "app.kubernetes.io/part-of": MANAGED_BY,
        **selector(model.metadata.name),
    }


def owner(model: InferenceModel) -> dict[str, Any]:
    """The ownerReference of every child: the garbage collector removes them with the model, operator or not."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": model.metadata.name,
        "uid": model.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(model: InferenceModel) -> dict[str, Any]:
    """The metadata of every child; each kind has one child, and it has the model's name."""
    return {
        "name": model.metadata.name,
        "namespace": model.metadata.namespace,
        "labels": labels(model),
        "ownerReferences": [owner(model)],
    }


def url(model: InferenceModel) -> str:
    """Base address of the API inside the cluster, to be used as an OpenAI client's base_url."""
    port = "" if SERVICE_PORT == 80 else f":{SERVICE_PORT}"
    return f"http://{model.metadata.name}.{model.metadata.namespace}.svc{port}/v1"
