"""Models that cannot run: each says why in its own word, and runs by itself once what is wrong is mended."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.api import Api, condition, is_ready, reason
from tests.support.models import model

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 512}


def fails(api: Api, name: str, why: str) -> str:
    """Waits until the model is not ready for this reason; returns the message."""
    seen = api.wait("InferenceModel", name, lambda im: reason(im) == why, what=f"{name} is {why}", seconds=120)
    assert condition(seen, "Ready")["status"] == "False"
    assert (seen or {})["status"]["phase"] == "Failed"
    return str(condition(seen, "Ready")["message"])


def recovers(api: Api, name: str) -> None:
    """Waits until the model serves."""
    api.wait("InferenceModel", name, is_ready, what=f"{name} is Ready", seconds=150)


def test_a_missing_model_file(api: Api, claim: Path, gguf: Path, user: Callable[..., str]) -> None:
    (claim / "other.txt").write_text("not a model")
    api.create(model("missing", source={"uri": "pvc://models/smol.gguf"}, **SMALL))
    message = fails(api, "missing", "ModelNotFound")
    assert "smol.gguf" in message
    assert "other.txt" in message
    assert "ModelNotFound" in user("get", "im", "missing")
    _put(gguf, claim / "smol.gguf")
    recovers(api, "missing")


def test_a_corrupt_model_file(api: Api, claim: Path, gguf: Path) -> None:
    (claim / "smol.gguf").write_bytes(gguf.read_bytes()[:100_000])
    (claim / "smol.gguf").chmod(0o644)
    api.create(model("corrupt", source={"uri": "pvc://models/smol.gguf"}, **SMALL))
    fails(api, "corrupt", "ModelFileInvalid")
    _put(gguf, claim / "smol.gguf")
    recovers(api, "corrupt")


def test_an_image_that_does_not_exist(api: Api) -> None:
    api.create(model("no-image", source={"uri": "oci://localhost/models/nothing:here"}, **SMALL))
    assert "localhost/models/nothing:here" in fails(api, "no-image", "ImagePullFailed")
    api.patch("InferenceModel", "no-image", {"spec": {"source": model()["spec"]["source"]}})
    recovers(api, "no-image")


def test_a_model_larger_than_its_memory(api: Api) -> None:
    api.create(model("large", **{**SMALL, "resources": {"cpu": "200m", "memory": "64Mi"}}))
    assert "MiB" in fails(api, "large", "OutOfMemory")
    api.patch("InferenceModel", "large", {"spec": {"resources": {"memory": "1Gi"}}})
    recovers(api, "large")


def test_a_quantization_that_the_file_does_not_have(api: Api) -> None:
    api.create(model("wrong-type", quantization="q8_0", **SMALL))
    message = fails(api, "wrong-type", "InvalidModelConfig").lower()
    assert "q8_0" in message
    assert "q4_1" in message


def _put(source: Path, target: Path) -> None:
    """Appears whole at once, as a careful user would do it."""
    shutil.copyfile(source, target.with_suffix(".new"))
    target.with_suffix(".new").chmod(0o644)
    target.with_suffix(".new").rename(target)
