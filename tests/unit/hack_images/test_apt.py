"""The base comes from the mirror that the machine's own apt uses."""

from pathlib import Path

import pytest

from hack.images import apt
from hack.images.apt import Source
from hack.images.errors import ImageError

DEB822 = """\
Types: deb deb-src
# a comment with a colon: here
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # why
deb https://vendor.example/apt sdk main
"""


def test_both_formats_of_sources_are_read() -> None:
    assert apt.parse_sources(DEB822) == [
        Source("http://mirror.example/debian", "bookworm", ("main",)),
        Source("http://mirror.example/debian", "bookworm-updates", ("main",)),
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]
    assert apt.parse_sources(ONE_LINE) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("https://vendor.example/apt", "sdk", ("main",)),
    ]


def test_the_suite_comes_with_its_updates_and_fixes_and_without_strangers() -> None:
    sources = [*apt.parse_sources(DEB822), *apt.parse_sources(ONE_LINE)]
    assert apt.sources_for("trixie", host="bookworm", sources=sources) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_a_machine_that_follows_stable_by_name_is_understood() -> None:
    found = apt.sources_for("trixie", host="trixie", sources=[Source("http://m/debian", "stable", ("main",))])
    assert found == ["deb http://m/debian trixie main"]


def test_without_a_debian_mirror_there_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.list").write_text("deb http://other.example/ubuntu noble main\n")
    (tmp_path / "os-release").write_text("ID=ubuntu\nVERSION_CODENAME=noble-x\n")
    monkeypatch.setattr(apt, "_APT", tmp_path)
    monkeypatch.setattr(apt, "_OS_RELEASE", tmp_path / "os-release")
    (tmp_path / "sources.list").write_text("deb http://vendor.example/apt sdk main\n")
    with pytest.raises(ImageError, match="no Debian mirror"):
        apt.source_lines("trixie")


def test_only_the_way_to_the_mirror_is_passed_on() -> None:
    dump = (
        'APT::Install-Recommends "1";\nAcquire::http "";\nAcquire::http::Proxy "http://p:1";\nAcquire::Retries "3";\n'
    )
    assert apt.passed_on_options(dump) == ['Acquire::http::Proxy "http://p:1"']
