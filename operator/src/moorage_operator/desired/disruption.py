"""Builds the PodDisruptionBudget of a model. Pure."""

from typing import Any

from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired import names


def disruption_budget(model: InferenceModel) -> dict[str, Any]:
    """The PodDisruptionBudget: one replica stays.

    The scheduler prefers to preempt pods whose budget allows it: of models that keep a replica elsewhere.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(model),
        "spec": {
            "minAvailable": min(1, model.spec.desired_replicas),
            "selector": {"matchLabels": names.selector(model.metadata.name)},
            # A pod that is not ready must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
