"""Builds the Service of a model. Pure."""

from typing import Any

from moorage_common.labels import RUNTIME_PORT_NAME, SERVICE_PORT
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired import names


def service(model: InferenceModel) -> dict[str, Any]:
    """The Service: one address inside the cluster for the ready pods of the model."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(model),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(model.metadata.name),
            "ports": [
                {"name": RUNTIME_PORT_NAME, "port": SERVICE_PORT, "protocol": "TCP", "targetPort": RUNTIME_PORT_NAME}
            ],
        },
    }
