"""Which images there are. Each says what it is made of and how its build context is prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.images import context
from hack.images.inputs import Input, files_below, one_file
from hack.models import MODELS, model_path
from hack.uv import find_uv

ROOT = Path(__file__).resolve().parents[2]


class ImageSpec(Protocol):
    """What the builder must know of an image."""

    @property
    def name(self) -> str:
        """The short name, for the command line and the archive."""

    @property
    def dockerfile(self) -> Path:
        """How the image is put together."""

    @property
    def needs_base(self) -> bool:
        """Whether the Dockerfile takes BASE_IMAGE."""

    def reference(self, digest: str) -> str:
        """Give the image's full name in the cluster."""

    def inputs(self) -> list[Input]:
        """Give what the image is made of, but for its base."""

    def prepare(self, folder: Path) -> None:
        """Fill the build context."""


@dataclass(frozen=True, kw_only=True)
class PythonImage:
    """An image with one of our packages and its locked requirements.

    Its tag is the digest of its inputs: a Deployment changes when, and only when, the image does.
    """

    name: str
    repository: str
    dockerfile: Path
    package: str
    extras: tuple[str, ...] = ()
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
        return context.locked_requirements(find_uv(), self.package, self.extras, ROOT)


@dataclass(frozen=True, kw_only=True)
class ModelImage:
    """An image with the files of a model, under a name that says which."""

    name: str
    image: str
    model: str
    dockerfile: Path = ROOT / "hack" / "images" / "model.Dockerfile"
    needs_base: bool = False

    def reference(self, digest: str) -> str:
        # A model's name is written in manifests, so it does not move with the recipe.
        return self.image

    def inputs(self) -> list[Input]:
        return [one_file(self.dockerfile, ROOT), ("sha256", MODELS[self.model].sha256.encode())]

    def prepare(self, folder: Path) -> None:
        context.prepare_files(folder, [model_path(self.model)])


OPERATOR = PythonImage(
    name="operator",
    repository="operator",
    dockerfile=ROOT / "operator" / "Dockerfile",
    package="moorage-operator",
)
RUNTIME = PythonImage(
    name="runtime",
    repository="runtime-llamacpp",
    dockerfile=ROOT / "runtime" / "Dockerfile",
    package="moorage-runtime",
    extras=("llamacpp", "s3"),
)
MODEL = ModelImage(name="model", image="localhost/models/smollm2:135m-q4", model="smollm2")
SPECS: dict[str, ImageSpec] = {spec.name: spec for spec in (OPERATOR, RUNTIME, MODEL)}
