"""The manifests that an InferenceModel asks for: `desired(model, config)`, pure and with golden files."""

from typing import Any

from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired.config import UNHINDERED, Circumstances, DesiredConfig
from moorage_operator.desired.disruption import disruption_budget
from moorage_operator.desired.service import service
from moorage_operator.desired.workload import deployment


def desired(model: InferenceModel, config: DesiredConfig, now: Circumstances = UNHINDERED) -> list[dict[str, Any]]:
    """The children of `model` in the order to apply them; none while there is no runtime image for it.

    A model that is to stop needs none: what its Deployment has will do.
    """
    image = config.image(model.spec) or (now.live_image if model.spec.desired_replicas == 0 else "")
    if not image:
        return []
    # The Service first: if its name is taken, pods would hold GPUs without being reachable.
    return [service(model), deployment(model, image, config, now), disruption_budget(model)]
