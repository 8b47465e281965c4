"""The base of our images where no registry is at hand: Debian with Python and what the engines' wheels need of it.

OpenMP is for llama.cpp and PyTorch, libnuma for vLLM on the CPU; all from the machine's own mirror.

One base for all images, so that a node unpacks it once.
"""

from __future__ import annotations

from pathlib import Path

from hack.images import apt
from hack.images.inputs import Input, one_file
from hack.images.process import run

SUITE = "trixie"
PYTHON_VERSION = "3.13"
PACKAGES = ("ca-certificates", "libgomp1", "libnuma1", "libstdc++6", "python3")
DOCKERFILE = Path(__file__).with_name("base.Dockerfile")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# dpkg never unpacks these.
_EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/lib/*/gconv/*",
)
_INCLUDED = ("/usr/share/doc/*/copyright",)
# These serve the installation of packages, which happens here for the last time; Python's own tests have to be unpacked
# first, because the package's script compiles them.
_REMOVED = (
    f"usr/lib/python{PYTHON_VERSION}/test",
    f"usr/lib/python{PYTHON_VERSION}/pydoc_data",
    "usr/bin/perl*",
    "usr/lib/*/perl-base",
    "usr/share/perl5",
    "usr/share/debconf",
    "var/cache/debconf/*",
    "var/cache/ldconfig/*",
    "var/log/*",
)


def recipe(root: Path) -> list[Input]:
    """Give what the base is made of, but for the packages' versions: those are the mirror's."""
    command = debootstrap_command(Path("base.tar"), [])
    return [("command", "\0".join(command).encode()), one_file(DOCKERFILE, root)]


def debootstrap_command(target: Path, apt_options: list[str]) -> list[str]:
    """Give the command that makes the base's root file system as a tar; it reads its sources from standard input."""
    return [
        "mmdebstrap",
        "--variant=essential",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
        f"--keyring={KEYRING}",
        *(f"--aptopt={option}" for option in apt_options),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        *(f"--dpkgopt=path-include={pattern}" for pattern in _INCLUDED),
        # mmdebstrap copies this machine's names in; the files are emptied rather than removed: engines mount over them.
        f'--customize-hook=cd "$1" && rm -rf {" ".join(_REMOVED)} && : > etc/hostname && : > etc/resolv.conf',
        "--skip=output/dev",
        SUITE,
        str(target),
        "-",
    ]


def make_root_tar(target: Path) -> None:
    """Make the root file system; takes most of a minute and needs the mirror."""
    unfinished = target.with_suffix(".unfinished")
    run(debootstrap_command(unfinished, apt.options()), stdin="\n".join(apt.source_lines(SUITE)) + "\n")
    unfinished.rename(target)
