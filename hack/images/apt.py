"""Reads this machine's apt configuration, so that the base image comes from the mirror that the machine itself uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.images.errors import ImageError
from hack.images.process import run

_APT = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
# How apt gets through to the mirror; the rest of its configuration is this machine's own business.
_PASSED_ON = ("Acquire::http::", "Acquire::https::", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class Source:
    """Where one suite of packages comes from."""

    uri: str
    suite: str
    components: tuple[str, ...]


def parse_sources(text: str) -> list[Source]:
    """Read a sources file in either of apt's formats.

    >>> parse_sources("deb [arch=amd64] http://mirror/debian bookworm main contrib")
    [Source(uri='http://mirror/debian', suite='bookworm', components=('main', 'contrib'))]
    """
    return list(_deb822(text) if re.search(r"^Types:", text, re.MULTILINE) else _one_line(text))


def sources_for(suite: str, *, host: str, sources: Iterable[Source]) -> list[str]:
    """Give the lines that install a suite from the mirrors of the host's suite, its updates and security included.

    >>> sources_for("trixie", host="bookworm", sources=[Source("http://m/debian", "bookworm-updates", ("main",))])
    ['deb http://m/debian trixie-updates main']
    """
    names = re.compile(rf"(?:{re.escape(host)}|stable|oldstable)((?:-updates|-security)?)")
    lines = []
    for source in sources:
        found = names.fullmatch(source.suite)
        if found and "main" in source.components:
            lines.append(f"deb {source.uri} {suite}{found[1]} main")
    return list(dict.fromkeys(lines))


def passed_on_options(dump: str) -> list[str]:
    """Pick from `apt-config dump` how apt reaches its mirror: proxies, certificates, checks of dates.

    >>> passed_on_options('APT::Color "1";\\nAcquire::http::Proxy "http://proxy:3128";')
    ['Acquire::http::Proxy "http://proxy:3128"']
    """
    return [line.rstrip(";") for line in dump.splitlines() if line.startswith(_PASSED_ON) and not line.endswith('"";')]


def host_codename(os_release: str) -> str:
    """Read the codename from /etc/os-release.

    >>> host_codename('ID=debian\\nVERSION_CODENAME=bookworm')
    'bookworm'
    """
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", os_release, re.MULTILINE)
    return found[1] if found else "stable"


def source_lines(suite: str) -> list[str]:
    """Give the sources of a suite as this machine's own mirrors have it."""
    files = [_APT / "sources.list", *sorted(_APT.glob("sources.list.d/*.list")), *_APT.glob("sources.list.d/*.sources")]
    sources = [source for file in files if file.exists() for source in parse_sources(file.read_text(encoding="utf-8"))]
    lines = sources_for(suite, host=host_codename(_OS_RELEASE.read_text(encoding="utf-8")), sources=sources)
    if not any(f" {suite} " in line for line in lines):
        raise ImageError("This machine's apt sources name no Debian mirror.", hint="See /etc/apt/sources.list.d.")
    return lines


def options() -> list[str]:
    """Give the apt options that mmdebstrap's apt needs to reach the mirror."""
    return passed_on_options(run(["apt-config", "dump"]))


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        fields = re.sub(r"\[[^\]]*\]", "", line.partition("#")[0]).split()
        if len(fields) >= 4 and fields[0] == "deb":
            yield Source(fields[1], fields[2], tuple(fields[3:]))


def _deb822(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = {key.strip().lower(): value.split() for key, _, value in (line.partition(":") for line in lines)}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield Source(uri, suite, tuple(fields.get("components", [])))
