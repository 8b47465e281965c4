"""Where the clusters keep things outside the checkout: a cache by version, a state folder by cluster name."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Give the folder of what can be made again: binaries, build caches, the pause image."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "moorage"


def clusters_root() -> Path:
    """Give the folder that holds one state folder for each cluster."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "moorage" / "clusters"


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification says that a relative path is invalid and to be ignored.
    return Path(value) if Path(value).is_absolute() else Path.home() / default
