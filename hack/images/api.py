"""`build_all` gives every image's reference and archive, and builds first those whose inputs have changed."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.paths import cache_root
from hack.cluster.progress import say, step
from hack.docker import docker_answers
from hack.images import base
from hack.images.catalog import QUICK, ROOT, SPECS, ImageSpec
from hack.images.engine import DOCKER_BASE, Buildah, Docker, Engine, Recipe, require_buildah
from hack.images.errors import ImageError
from hack.images.inputs import Input, digest_of

NAMES = tuple(spec.name for spec in QUICK)
"""Those that are meant where nobody says which."""
ARCHIVES_KEPT = 2
# A build is tried again when somebody saves a file of the image during it.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Image:
    """A built image: its name in manifests, and the archive to load into a cluster's nodes."""

    reference: str
    archive: Path


def images_root() -> Path:
    """Give the folder of archives, the base image and the engine's storage."""
    return cache_root() / "images"


def build_all(names: Iterable[str] = NAMES) -> dict[str, Image]:
    """Give the images, built where their inputs have changed."""
    names, docker = list(names), docker_answers()
    wanted = plan(names, docker=docker)
    if not _missing(wanted):
        return wanted
    if not docker:
        require_buildah()
    with _locked():
        for _ in range(_ATTEMPTS):
            wanted = plan(names, docker=docker)
            missing = _missing(wanted)
            if not missing:
                return wanted
            _build(missing, docker=docker)
    raise ImageError("The sources keep changing while the images are built.", hint="Try again when they are at rest.")


def plan(names: Iterable[str] = NAMES, *, docker: bool) -> dict[str, Image]:
    """Say what the images are called and where their archives are, or will be; builds nothing."""
    names = list(names)
    unknown = [name for name in names if name not in SPECS]
    if unknown:
        raise ImageError(f"There is no image {', '.join(unknown)}; there are {', '.join(SPECS)}.")
    base_inputs = [("base", DOCKER_BASE.encode())] if docker else base.recipe(ROOT)
    return {name: _plan_one(SPECS[name], base_inputs) for name in names}


def clean() -> None:
    """Remove the archives, the base image and the engine's storage."""
    Buildah(images_root() / "storage").discard()
    shutil.rmtree(images_root(), ignore_errors=True)


def superseded(archives: Mapping[Path, float], kept: Path, *, keep: int = ARCHIVES_KEPT) -> list[Path]:
    """Choose which archives of one image to delete: all but the kept one and the newest others, `keep` in all."""
    others = sorted((path for path in archives if path != kept), key=lambda path: archives[path], reverse=True)
    return others[max(keep - 1, 0) :]


def _plan_one(spec: ImageSpec, base_inputs: list[Input]) -> Image:
    digest = digest_of([*spec.inputs(), *(base_inputs if spec.needs_base else [])])
    return Image(spec.reference(digest), images_root() / f"{spec.name}-{digest}.tar")


def _missing(wanted: Mapping[str, Image]) -> dict[str, Image]:
    return {name: image for name, image in wanted.items() if not image.archive.exists()}


def _build(images: Mapping[str, Image], *, docker: bool) -> None:
    repositories = tuple({image.reference.rpartition(":")[0] for image in images.values()})
    engine: Engine = Docker(repositories) if docker else Buildah(images_root() / "storage")
    engine.open()
    kept = {image.reference for image in plan(SPECS, docker=docker).values()}
    arguments: dict[str, str] = {}
    if not docker and any(SPECS[name].needs_base for name in images):
        arguments["BASE_IMAGE"] = _ensure_base(engine)
        kept.add(arguments["BASE_IMAGE"])
    for number, (name, image) in enumerate(images.items(), start=1):
        with step(f"build {image.reference} ({number} of {len(images)})"):
            _prepare(SPECS[name])
            if plan([name], docker=docker)[name] != image:
                say(f"    the sources of {name} changed meanwhile")
                continue
            _build_one(SPECS[name], image, engine, arguments)
        say(f"    {image.archive} ({image.archive.stat().st_size / 1e6:.0f} MB)")
    engine.keep_only(kept)


def _context(spec: ImageSpec) -> Path:
    return ROOT / "dist" / spec.name


def _prepare(spec: ImageSpec) -> None:
    folder = _context(spec)
    spec.prepare(folder)
    # The Dockerfile lies beside what it copies, so that both are of one moment.
    shutil.copyfile(spec.dockerfile, folder.with_suffix(".Dockerfile"))


def _build_one(spec: ImageSpec, image: Image, engine: Engine, arguments: Mapping[str, str]) -> None:
    folder = _context(spec)
    recipe = Recipe(folder.with_suffix(".Dockerfile"), folder, spec.target, arguments if spec.needs_base else {})
    engine.build(recipe, image.reference)
    # Whole or absent: others look for the archive without taking the lock.
    unfinished = image.archive.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    engine.save(image.reference, unfinished)
    unfinished.rename(image.archive)
    archives = {path: path.stat().st_mtime for path in images_root().glob(f"{spec.name}-*.tar")}
    for path in superseded(archives, image.archive):
        path.unlink()


def _ensure_base(engine: Engine) -> str:
    digest = digest_of(base.recipe(ROOT))
    reference = f"localhost/moorage/base:{digest}"
    if engine.has(reference):
        return reference
    folder = images_root() / f"base-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base.tar").exists():
        with step(f"make the base image: Debian {base.SUITE}, {', '.join(base.PACKAGES)}"):
            base.make_root_tar(folder / "base.tar")
    with step("import the base image"):
        engine.build(Recipe(base.DOCKERFILE, folder), reference)
    for old in images_root().glob("base-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return reference


@contextmanager
def _locked() -> Iterator[None]:
    images_root().mkdir(parents=True, exist_ok=True)
    with (images_root() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("wait for another process that builds images"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
