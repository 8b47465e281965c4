"""What an engine is to the operator: an image, a port, probes and settings. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moorage_common.labels import RUNTIME_PORT, RUNTIME_PORT_NAME
from moorage_operator.api.v1alpha1 import InferenceModelSpec


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine. What all have in common, as they share the runtime's HTTP front, is the default here."""

    settings: Callable[[InferenceModelSpec], Mapping[str, str]]
    """The settings that only this engine has, from a spec of its framework."""
    gpu_share: Callable[[InferenceModelSpec], float] = lambda _spec: 1.0
    """The share of each GPU's memory that it uses for a spec of its framework."""
    gpus: Callable[[InferenceModelSpec], int] = lambda spec: spec.gpu.count
    """The GPUs that one copy of the model is split over; 0 on the CPU."""
    shared_memory: bool = False
    """Whether its processes talk over /dev/shm, of which a container has no more than 64 MiB by itself."""
    port: int = RUNTIME_PORT
    load_seconds: int = 3600
    """How long a model may load before the kubelet ends it; a load that fails ends by itself long before."""

    def image(self, spec: InferenceModelSpec, images: Mapping[str, str]) -> str | None:
        """The runtime image: that of the spec, else the one in `images` for its framework and device, or None."""
        return spec.runtime_image or images.get(image_key(spec)) or None

    def probes(self) -> dict[str, Any]:
        """The probes of the container."""
        return {
            "startupProbe": _probe("/health/ready", period=1, failures=self.load_seconds),
            "readinessProbe": _probe("/health/ready", period=2, failures=2),
            "livenessProbe": _probe("/health", period=10, failures=3),
        }


def image_key(spec: InferenceModelSpec) -> str:
    """The key of an image for `spec`: `llamacpp/cpu`, say."""
    return f"{spec.framework.value}/{device(spec)}"


def device(spec: InferenceModelSpec) -> str:
    """What the model runs on: `cpu` or `gpu`."""
    return "gpu" if spec.gpu.count else "cpu"


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": RUNTIME_PORT_NAME, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
