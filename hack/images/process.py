"""Runs a program of the build; what it prints is kept and shown only when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hack.images.errors import ImageError

_TAIL = 3000


def run(command: Sequence[str], *, cwd: Path | None = None, stdin: str | None = None, timeout: float = 1800) -> str:
    """Give a program's standard output; raise with the end of what it printed when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed.", hint="Run `make deps`.") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{command[0]} did not end within {timeout:.0f} s: {' '.join(command)}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
        raise ImageError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout
