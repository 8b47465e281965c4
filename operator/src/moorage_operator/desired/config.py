"""What the builders of manifests take from the operator's settings. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines import ENGINES


@dataclass(frozen=True)
class DesiredConfig:
    """`images` maps `FRAMEWORK/DEVICE`, device being `cpu` or `gpu`, to the image reference of a runtime.

    `image_pull_secrets`: names of Secrets in the model's namespace, for the runtime's image and for models from images.
    `runtime_classes`: the RuntimeClass of the pods by device.
    `set_user`: whether pods name their user and groups; on OpenShift the cluster does.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    image_pull_policy: str = "IfNotPresent"
    priority_class_prefix: str = "moorage-"
    image_pull_secrets: tuple[str, ...] = ()
    runtime_classes: Mapping[str, str] = field(default_factory=dict)
    set_user: bool = True

    def image(self, spec: InferenceModelSpec) -> str | None:
        """The runtime image for `spec`, or None when there is none for its framework and device."""
        return ENGINES[spec.framework].image(spec, self.images)


@dataclass(frozen=True)
class Circumstances:
    """What the Deployment must fit in with, beside its spec.

    `make_room`: an old pod ends before a new one starts, which would wait for ever for what the old one holds.
    `tried_under`: the rules under which the API server last refused its pods; a change has them tried again.
    `replicas`: how many there are to be, where the spec leaves it to the operator; 0 is asleep.
    `live_image`: that of the Deployment as it is. It is enough to end its pods where there is no image to start any.
    """

    make_room: bool = False
    tried_under: str = ""
    replicas: int | None = None
    live_image: str = ""


UNHINDERED: Final = Circumstances()
