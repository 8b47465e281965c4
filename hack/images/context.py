"""Prepares an image's build context on the host: locked wheels unpacked for the image's Python, and our own packages.

So the image needs neither pip nor a network, and what is in it is what uv.lock says.
"""

from __future__ import annotations

import platform
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from hack.images.base import PYTHON_VERSION
from hack.images.process import run

# glibc of Debian 13 is newer; wheels for an older one run on it.
MANYLINUX = "manylinux_2_40"


def export_command(uv: str, package: str, extras: Iterable[str]) -> list[str]:
    """Give the command that prints what a package of the workspace needs, with hashes."""
    chosen = [argument for extra in extras for argument in ("--extra", extra)]
    quiet = ["--quiet", "--no-header", "--no-annotate"]
    return [uv, "export", "--frozen", "--no-dev", "--no-emit-workspace", *quiet, "--package", package, *chosen]


def install_command(uv: str, requirements: Path, target: Path, machine: str) -> list[str]:
    """Give the command that unpacks the wheels for the image's Python and platform."""
    # By links where the file system can, as the wheels of an engine are gigabytes; nothing writes to them afterwards.
    where = ["--target", str(target), "--python-version", PYTHON_VERSION]
    which = ["--python-platform", f"{machine}-{MANYLINUX}", "--only-binary", ":all:", "--no-deps", "--require-hashes"]
    return [uv, "pip", "install", "--quiet", "--link-mode", "hardlink", *where, *which, "-r", str(requirements)]


def wheel_command(uv: str, package: str, target: Path) -> list[str]:
    """Give the command that builds the wheel of one of our packages."""
    return [uv, "build", "--quiet", "--wheel", "--package", package, "--out-dir", str(target)]


def locked_requirements(uv: str, package: str, extras: Iterable[str], root: Path) -> str:
    """Say what uv.lock holds for a package, as requirements with hashes."""
    return run(export_command(uv, package, extras), cwd=root)


def prepare_python(folder: Path, *, uv: str, requirements: str, packages: Iterable[str], root: Path) -> None:
    """Fill a context folder with `dependencies/` and `packages/`."""
    shutil.rmtree(folder, ignore_errors=True)
    dependencies, own, wheels = folder / "dependencies", folder / "packages", folder / "wheels"
    for needed in (dependencies, own, wheels):
        needed.mkdir(parents=True)
    locked = wheels / "requirements.txt"
    locked.write_text(requirements, encoding="utf-8")
    if requirements:
        run(install_command(uv, locked, dependencies, platform.machine()), cwd=root)
    # Commands whose first line names this machine's Python, and what uv leaves behind.
    shutil.rmtree(dependencies / "bin", ignore_errors=True)
    (dependencies / ".lock").unlink(missing_ok=True)
    for package in packages:
        run(wheel_command(uv, package, wheels), cwd=root)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(own)
    shutil.rmtree(wheels)


def prepare_files(folder: Path, files: Iterable[Path]) -> None:
    """Fill a context folder with files; by links where the file system can, because models are large."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:
            shutil.copyfile(file, folder / file.name)
