"""Installs the Debian packages of packages.txt that are missing: `install.py [--check] [--engines] [--bench]`.

It runs before the virtual environment exists, so it imports the standard library only and nothing of ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE_LIST = Path(__file__).resolve().with_name("packages.txt")
SECTIONS = ("always", "host", "engines", "bench")
_APT_LISTS = Path("/var/lib/apt/lists")
_LISTS_STAY_FRESH_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Package:
    """A Debian package, which machines need it, and why."""

    name: str
    section: str
    why: str


class ListError(ValueError):
    """The package list cannot be read."""


def parse_packages(text: str) -> list[Package]:
    """Read the list.

    >>> parse_packages("[host]\\nrunc  starts containers")
    [Package(name='runc', section='host', why='starts containers')]
    """
    packages: list[Package] = []
    section = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            if section not in SECTIONS:
                raise ListError(f"line {number}: {line} is no section; known are {', '.join(SECTIONS)}.")
            continue
        name, _, why = line.partition(" ")
        if not section or not why.strip():
            raise ListError(f"line {number}: {line!r} needs a section above it and a reason after the name.")
        packages.append(Package(name, section, why.strip()))
    return packages


def installed_names(dpkg_output: str) -> set[str]:
    """Read `dpkg-query -W -f '${Package} ${db:Status-Status}\\n'`.

    >>> installed_names("runc installed\\nbuildah config-files\\n")
    {'runc'}
    """
    pairs = (line.split() for line in dpkg_output.splitlines())
    return {pair[0] for pair in pairs if pair[1:] == ["installed"]}


def lacking(
    packages: Iterable[Package], installed: set[str], *, docker: bool, extra: Container[str] = ()
) -> list[Package]:
    """Give what this machine still needs; with a Docker engine the host cluster's packages are not needed.

    `extra` are the sections that are asked for beside the usual ones.
    """
    needed = {"always"} if docker else {"always", "host"}
    return [p for p in packages if p.name not in installed and (p.section in needed or p.section in extra)]


def advice(missing: Iterable[Package], *, debian: bool) -> str:
    """Say what a person can do who cannot let this script install."""
    names = " ".join(package.name for package in missing)
    if debian:
        return f"Installing needs root. Run:  sudo apt-get install --no-install-recommends {names}"
    return (
        "This is not a Debian system, and Moorage runs a cluster on the bare host on Debian 12 or newer only.\n"
        "Start a Docker engine and try again (cluster and images then use it), or use a Debian machine or VM."
    )


def apt_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Give apt's environment: it must never ask, nor start a service."""
    return {**base, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def update_command() -> list[str]:
    return ["apt-get", "update", "-q"]


def install_command(names: Iterable[str]) -> list[str]:
    return ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing; with --check only tell it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="tell what is missing, install nothing (exit 1 if any)")
    parser.add_argument("--engines", action="store_true", help="also what the tests of the large engines need")
    parser.add_argument("--bench", action="store_true", help="also what the gateway's benchmark needs")
    chosen = parser.parse_args(arguments)
    extra = {section for section in ("engines", "bench") if getattr(chosen, section)}
    packages = parse_packages(PACKAGE_LIST.read_text(encoding="utf-8"))
    debian = shutil.which("dpkg-query") is not None and shutil.which("apt-get") is not None
    installed = _ask_dpkg(packages) if debian else set()
    missing = lacking(packages, installed, docker=False, extra=extra)
    if missing and _docker_answers():
        print("A Docker engine answers: the packages for a cluster on the bare host are not needed.")
        missing = lacking(packages, installed, docker=True, extra=extra)
        if missing and not debian:
            print("Not Debian: make sure that these are there: " + ", ".join(package.name for package in missing))
            return 0
    if not missing:
        print("Debian packages: nothing to install.")
        return 0
    print(f"Debian packages: {len(missing)} of {len(packages)} are missing:")
    for package in missing:
        print(f"  {package.name:<28}{package.why}")
    if chosen.check or not debian or os.geteuid() != 0:
        print(advice(missing, debian=debian), file=sys.stderr)
        return 1
    return _install([package.name for package in missing])


def _ask_dpkg(packages: Iterable[Package]) -> set[str]:
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *(package.name for package in packages)]
    # It ends with 1 when a name is unknown, which is what we are asking.
    return installed_names(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _install(names: list[str]) -> int:
    start = time.monotonic()
    environment = apt_environment(os.environ)
    sys.stdout.flush()
    if not _lists_are_fresh() and subprocess.run(update_command(), env=environment, check=False).returncode:
        print("apt-get update failed; see above.", file=sys.stderr)
        return 1
    code = subprocess.run(install_command(names), env=environment, check=False, stdin=subprocess.DEVNULL).returncode
    if code:
        # Lists of this morning may name versions that the mirror has replaced since.
        retried = subprocess.run(update_command(), env=environment, check=False).returncode == 0
        code = subprocess.run(install_command(names), env=environment, check=False).returncode if retried else code
    if code:
        print(f"apt-get could not install {' '.join(names)}; see above.", file=sys.stderr)
        return 1
    print(f"Debian packages: installed {len(names)} in {time.monotonic() - start:.0f} s.")
    return 0


def _lists_are_fresh() -> bool:
    times = [entry.stat().st_mtime for entry in _APT_LISTS.glob("*_Packages*")]
    changed = _APT_LISTS.stat().st_mtime if times else 0.0
    return time.time() - changed < _LISTS_STAY_FRESH_SECONDS


if __name__ == "__main__":
    sys.exit(main())
