"""Turns the address of a model into a volume and the path that the engine finds it at. Pure."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from moorage_operator.api.source import Source

MODELS_DIR: Final = "/models"
VOLUME_NAME: Final = "model"
DEFAULT_ROOM: Final = "100Gi"
"""A bound, so that no model fills a node's disk unasked."""


@dataclass(frozen=True)
class ModelStorage:
    """The volume, its mount (read-only) and the path of the model inside the container."""

    volume: dict[str, Any]
    mount: dict[str, Any]
    path: str


def storage(source: Source, image_pull_policy: str) -> ModelStorage:
    """The storage behind an address, whose form the API server has checked."""
    mount = {"name": VOLUME_NAME, "mountPath": MODELS_DIR, "readOnly": True}
    _, _, rest = source.uri.partition("://")
    if source.is_fetched:
        return ModelStorage({"name": VOLUME_NAME, "emptyDir": {"sizeLimit": room(source)}}, mount, MODELS_DIR)
    if source.scheme == "oci":
        image = {"reference": rest, "pullPolicy": image_pull_policy}
        return ModelStorage({"name": VOLUME_NAME, "image": image}, mount, MODELS_DIR)
    claim, _, path = rest.partition("/")
    volume = {"name": VOLUME_NAME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    folder, file = _split(path)
    if folder:
        # Only the model's folder is mounted, so that a model cannot read its neighbours in a shared claim.
        mount = {**mount, "subPath": folder}
    return ModelStorage(volume, mount, f"{MODELS_DIR}/{file}" if file else MODELS_DIR)


def room(source: Source) -> str:
    """How much a model that is fetched may have."""
    return str(source.size) if source.size is not None else DEFAULT_ROOM


def _split(path: str) -> tuple[str, str]:
    """Folder and file of `path`; without the ending of a model file, the whole path is a folder."""
    pure = PurePosixPath(path)
    if pure.suffix.lower() != ".gguf":
        return path, ""
    return "" if str(pure.parent) == "." else str(pure.parent), pure.name
