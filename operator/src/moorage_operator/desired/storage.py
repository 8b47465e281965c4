"""Turns the address of a model into a volume and the path that the engine finds it at. Pure."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

MODELS_DIR: Final = "/models"
VOLUME_NAME: Final = "model"


@dataclass(frozen=True)
class ModelStorage:
    """The volume, its mount (read-only) and the path of the model inside the container."""

    volume: dict[str, Any]
    mount: dict[str, Any]
    path: str


def storage(uri: str, image_pull_policy: str) -> ModelStorage:
    """The storage behind `uri`, whose form the API server has checked: `oci://IMAGE` or `pvc://CLAIM[/PATH]`."""
    scheme, _, rest = uri.partition("://")
    mount = {"name": VOLUME_NAME, "mountPath": MODELS_DIR, "readOnly": True}
    if scheme == "oci":
        source = {"reference": rest, "pullPolicy": image_pull_policy}
        return ModelStorage({"name": VOLUME_NAME, "image": source}, mount, MODELS_DIR)
    claim, _, path = rest.partition("/")
    volume = {"name": VOLUME_NAME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    folder, file = _split(path)
    if folder:
        # Only the model's folder is mounted, so that a model cannot read its neighbours in a shared claim.
        mount = {**mount, "subPath": folder}
    return ModelStorage(volume, mount, f"{MODELS_DIR}/{file}" if file else MODELS_DIR)


def _split(path: str) -> tuple[str, str]:
    """Folder and file of `path`; without the ending of a model file, the whole path is a folder."""
    pure = PurePosixPath(path)
    if pure.suffix.lower() != ".gguf":
        return path, ""
    return "" if str(pure.parent) == "." else str(pure.parent), pure.name
