"""Says whether a Docker engine is at hand: then clusters and images use it, else they are made on the host."""

from __future__ import annotations

import shutil
import subprocess


def docker_answers() -> bool:
    """Ask the engine, not merely its client."""
    if not shutil.which("docker"):
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False
