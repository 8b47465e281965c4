"""The two engines that put images together: buildah, which needs no daemon, and Docker, where an engine answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hack.images.errors import ImageError
from hack.images.process import run

DOCKER_BASE = "docker.io/library/python:3.13-slim-trixie"


@dataclass(frozen=True)
class Recipe:
    """What an image is built from: a Dockerfile, a context, a stage ("" is the last) and build arguments."""

    dockerfile: Path
    folder: Path
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Give them as options that buildah and docker share, with the context at the end left out."""
        target = ["--target", self.target] if self.target else []
        return [*(f"--build-arg={name}={value}" for name, value in self.arguments.items()), *target]


class Engine(Protocol):
    """Builds images and writes them to archives."""

    def open(self) -> None:
        """Make ready for builds, whatever state an earlier one was left in."""

    def has(self, reference: str) -> bool:
        """Say whether an image is in the engine's storage."""

    def build(self, recipe: Recipe, reference: str) -> None:
        """Build an image."""

    def save(self, reference: str, archive: Path) -> None:
        """Write an image to an archive that containerd can import."""

    def keep_only(self, references: set[str]) -> None:
        """Forget our other images."""


@dataclass(frozen=True)
class Buildah:
    """Buildah with a storage of its own; it keeps its layers, so that a change of our code builds the last one only."""

    storage: Path

    def command(self, *arguments: str) -> list[str]:
        where = ["--root", str(self.storage / "root"), "--runroot", str(self.storage / "run")]
        return ["buildah", *where, "--storage-driver", "overlay", *arguments]

    def build_command(self, recipe: Recipe, reference: str) -> list[str]:
        # Layers without times are the same bytes whenever they are built, so nodes recognise them. The base keeps its
        # times: the bytecode in it was made for them.
        times = ["--timestamp", "0"] if recipe.arguments else []
        how = ["--isolation", "chroot", "--layers", "--pull-never", *times, *recipe.options()]
        return self.command("bud", *how, "-f", str(recipe.dockerfile), "-t", reference, str(recipe.folder))

    def save_command(self, reference: str, archive: Path) -> list[str]:
        target = f"oci-archive:{archive}:{reference}"
        return self.command("push", "--quiet", "--compression-format", "zstd", reference, target)

    def open(self) -> None:
        if not self.storage.exists():
            return
        try:
            # Containers of a build that was killed.
            run(self.command("rm", "--all"))
            run(self.command("images", "--quiet"))
        except ImageError:
            self.discard()

    def has(self, reference: str) -> bool:
        return reference in self._references()

    def build(self, recipe: Recipe, reference: str) -> None:
        run(self.build_command(recipe, reference))

    def save(self, reference: str, archive: Path) -> None:
        run(self.save_command(reference, archive))

    def keep_only(self, references: set[str]) -> None:
        old = self._references() - references
        if old:
            run(self.command("rmi", *sorted(old)))
        run(self.command("rmi", "--prune"))

    def discard(self) -> None:
        """Remove the whole storage, with mounts that a killed build left in it."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        for point in sorted((line.split()[1] for line in mounts), reverse=True):
            if point.startswith(f"{self.storage}/"):
                subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
        shutil.rmtree(self.storage, ignore_errors=True)

    def _references(self) -> set[str]:
        listed = run(self.command("images", "--format", "{{.Name}}:{{.Tag}}"))
        return {line for line in listed.split() if not line.startswith("<none>")}


@dataclass(frozen=True)
class Docker:
    """The Docker engine that answers here; only our own images are touched in it."""

    repositories: tuple[str, ...]

    def build_command(self, recipe: Recipe, reference: str) -> list[str]:
        where = ["-f", str(recipe.dockerfile), "-t", reference, str(recipe.folder)]
        return ["docker", "build", "--quiet", *recipe.options(), *where]

    def open(self) -> None:
        """An engine that answers is ready."""

    def has(self, reference: str) -> bool:
        command = ["docker", "image", "inspect", reference]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def build(self, recipe: Recipe, reference: str) -> None:
        run(self.build_command(recipe, reference))

    def save(self, reference: str, archive: Path) -> None:
        run(["docker", "save", "--output", str(archive), reference])

    def keep_only(self, references: set[str]) -> None:
        filters = [argument for name in self.repositories for argument in ("--filter", f"reference={name}")]
        listed = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *filters]).split()
        old = {reference for reference in listed if reference not in references}
        if old:
            run(["docker", "image", "rm", *sorted(old)])


def require_buildah() -> None:
    """Raise, saying what to do, where images cannot be built without an engine."""
    if os.geteuid() != 0:
        raise ImageError(
            "Building images needs root, or a Docker engine that answers.",
            hint="Run as root on Debian 12 or newer, or start Docker.",
        )
    lacking = [program for program in ("buildah", "mmdebstrap", "apt-config") if shutil.which(program) is None]
    if lacking:
        raise ImageError(f"Missing: {', '.join(lacking)}.", hint="Run `make deps`.")
