"""The manifests that an InferenceModel asks for: `desired(model, config)`, pure and with golden files."""

from typing import Any

from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired.config import DesiredConfig
from moorage_operator.desired.disruption import disruption_budget
from moorage_operator.desired.service import service
from moorage_operator.desired.workload import deployment


def desired(model: InferenceModel, config: DesiredConfig, *, make_room: bool = False) -> list[dict[str, Any]]:
    """The children of `model` in the order to apply them; none while there is no runtime image for it.

    `make_room`: an old pod ends before a new one starts.
    """
    image = config.image(model.spec)
    if not image:
        return []
    # The Service first: where a stranger has its name, pods would hold GPUs that nobody can reach.
    return [service(model), deployment(model, image, config, make_room=make_room), disruption_budget(model)]
