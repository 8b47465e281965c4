"""Builds the groups of the catalog once and keeps their binaries by version in the cache.

A group's folder appears by one rename, so it is whole or absent. A file lock lets the second of two callers wait for
the first instead of compiling the same thing beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import paths
from hack.cluster.errors import BuildError
from hack.cluster.locking import locked
from hack.cluster.progress import step
from hack.cluster.toolchain.catalog import ALL_GROUPS, ToolGroup
from hack.cluster.toolchain.gosdk import ensure_go


@dataclass(frozen=True)
class ToolCache:
    """The cache's folders: finished binaries, and what Go needs on the way to them."""

    root: Path

    @classmethod
    def default(cls) -> ToolCache:
        return cls(paths.cache_root())

    @property
    def bin_root(self) -> Path:
        return self.root / "bin"

    @property
    def build_root(self) -> Path:
        return self.root / "build"

    def has(self, group: ToolGroup) -> bool:
        return (self.bin_root / group.folder).is_dir()

    def missing(self, groups: Iterable[ToolGroup]) -> list[ToolGroup]:
        return [group for group in groups if not self.has(group)]


def ensure_built(
    groups: Iterable[ToolGroup], cache: ToolCache | None = None, *, provider_groups: Iterable[ToolGroup] = ALL_GROUPS
) -> None:
    """Build the groups that the cache lacks; when all that the provider may ever want are there, drop Go's caches."""
    groups = tuple(groups)
    cache = cache or ToolCache.default()
    if not cache.missing(groups):
        return
    go = ensure_go()
    with locked(cache.root / "build.lock", "another process that builds the same binaries"):
        _drop_unfinished(cache)
        wanted = cache.missing(groups)
        threading.Thread(target=_prefetch, args=(wanted[1:], go, cache), daemon=True).start()
        for number, group in enumerate(wanted, start=1):
            with step(f"build {group.folder} ({number} of {len(wanted)}: {', '.join(group.tools)})"):
                _build(group, go, cache)
        if not cache.missing(provider_groups):
            _drop_go_caches(cache)


def list_command(group: ToolGroup, go: Path) -> list[str]:
    """Give the command that loads all packages of a group, and with that downloads the modules they are in."""
    return [str(go), "list", "-deps", "-f", "{{if .Error}}{{.Error}}{{end}}", *group.tools.values()]


def build_command(group: ToolGroup, go: Path, output: Path) -> list[str]:
    """Give the command that compiles all tools of a group into a folder."""
    # The build may take minutes, and the machine has other work to do.
    return ["nice", "-n", "10", str(go), "build", "-ldflags", group.ldflags, "-o", f"{output}/", *group.tools.values()]


def build_environment(go: Path, cache: ToolCache, base: dict[str, str]) -> dict[str, str]:
    """Give Go's environment: caches of our own, nothing downloaded but modules, nothing from the host linked in."""
    own = {
        "CGO_ENABLED": "0",
        "GOMODCACHE": str(cache.build_root / "mod"),
        "GOCACHE": str(cache.build_root / "gocache"),
        "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "PATH": f"{go.parent}:{base.get('PATH', '')}",
    }
    return {name: value for name, value in base.items() if name not in ("GOOS", "GOARCH", "GOROOT")} | own


def default_binary_name(package: str) -> str:
    """Give the name that `go build -o folder/` gives a command.

    >>> default_binary_name("go.etcd.io/etcd/server/v3"), default_binary_name("helm.sh/helm/v4/cmd/helm")
    ('server', 'helm')
    """
    *_, parent, last = package.split("/")
    return parent if last[:1] == "v" and last[1:].isdigit() else last


def _prefetch(groups: list[ToolGroup], go: Path, cache: ToolCache) -> None:
    # The network is idle while the first group compiles. What fails here is tried again, and reported, by the build.
    environment = build_environment(go, cache, dict(os.environ))
    for group in groups:
        subprocess.run(
            list_command(group, go), cwd=group.module_dir, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, check=False,
        )  # fmt: skip


def _build(group: ToolGroup, go: Path, cache: ToolCache) -> None:
    cache.bin_root.mkdir(parents=True, exist_ok=True)
    output = Path(tempfile.mkdtemp(prefix=f".{group.folder}.", dir=cache.bin_root))
    try:
        environment = build_environment(go, cache, dict(os.environ))
        _run(build_command(group, go, output), group, environment)
        for tool, package in group.tools.items():
            (output / default_binary_name(package)).rename(output / tool)
        if group.asset_files:
            _copy_assets(group, go, environment, output)
        output.chmod(0o755)
        output.rename(cache.bin_root / group.folder)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _copy_assets(group: ToolGroup, go: Path, environment: dict[str, str], output: Path) -> None:
    module = _run([str(go), "list", "-m", "-f", "{{.Dir}}", group.asset_module], group, environment).strip()
    for name in group.asset_files:
        shutil.copyfile(Path(module) / name, output / Path(name).name)


def _run(command: list[str], group: ToolGroup, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=group.module_dir,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{group.folder} could not be built:\n{done.stderr.strip()[-3000:]}")
    return done.stdout


def _drop_unfinished(cache: ToolCache) -> None:
    # Whoever holds the lock knows that a temporary folder belongs to a build that was killed.
    for folder in (*cache.bin_root.glob(".*-*"), *cache.root.glob("build.*.dropped")):
        shutil.rmtree(folder, ignore_errors=True)


def _drop_go_caches(cache: ToolCache) -> None:
    # Gigabytes in small files that no later start needs. Deleting them takes a minute, which nobody has to wait for.
    if cache.build_root.exists():
        trash = cache.root / f"build.{os.getpid()}.dropped"
        cache.build_root.rename(trash)
        remove = ["nice", "-n", "19", "rm", "-rf", str(trash)]
        os.posix_spawnp(remove[0], remove, dict(os.environ), setsid=True)
