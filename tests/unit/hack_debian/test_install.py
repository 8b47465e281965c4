"""The installer of Debian packages: its list, and what it decides."""

import os
import shutil
from pathlib import Path

import pytest

from hack.cluster import doctor
from hack.debian import install
from hack.debian.install import ListError, Package

RUNC = Package("runc", "host", "starts containers")
GIT = Package("git", "always", "lists files")


def test_the_list_in_the_repository_is_readable_and_names_nothing_twice() -> None:
    names = [package.name for package in install.parse_packages(install.PACKAGE_LIST.read_text(encoding="utf-8"))]
    assert "buildah" in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("runc  starts containers", "needs a section"),
        ("[host]\nrunc", "a reason"),
        ("[sometimes]\nrunc  starts containers", "is no section"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_with_its_number(text: str, complaint: str) -> None:
    with pytest.raises(ListError, match=rf"line \d: .*{complaint}"):
        install.parse_packages(text)


def test_comments_and_empty_lines_are_passed_over() -> None:
    assert install.parse_packages("# why\n\n[host]\n  runc   starts containers\n") == [RUNC]


def test_a_removed_package_with_configuration_left_is_not_installed() -> None:
    assert install.installed_names("git installed\nrunc config-files\nhalf half-configured\n") == {"git"}


def test_with_docker_the_host_packages_are_not_needed() -> None:
    assert install.lacking([GIT, RUNC], set(), docker=False) == [GIT, RUNC]
    assert install.lacking([GIT, RUNC], set(), docker=True) == [GIT]
    assert install.lacking([GIT, RUNC], {"runc"}, docker=False) == [GIT]


def test_without_root_the_advice_is_a_command_to_copy() -> None:
    assert "sudo apt-get install --no-install-recommends git runc" in install.advice([GIT, RUNC], debian=True)


def test_elsewhere_the_advice_is_docker_or_debian() -> None:
    advice = install.advice([RUNC], debian=False)
    assert "Docker" in advice
    assert "Debian" in advice


def test_apt_never_asks_and_brings_nothing_along() -> None:
    assert install.apt_environment({"DEBIAN_FRONTEND": "readline"})["DEBIAN_FRONTEND"] == "noninteractive"
    command = install.install_command(["runc"])
    assert {"-y", "--no-install-recommends"} <= set(command)
    assert command[-1] == "runc"


def test_with_check_nothing_is_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install, "_ask_dpkg", lambda packages: set())
    monkeypatch.setattr(install, "_docker_answers", lambda: False)
    monkeypatch.setattr(install, "_install", lambda names: pytest.fail("installs"))
    assert install.main(["--check"]) == 1
    assert "runc" in capsys.readouterr().out


def test_without_root_nothing_is_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(install, "_ask_dpkg", lambda packages: {"git"})
    monkeypatch.setattr(install, "_docker_answers", lambda: False)
    monkeypatch.setattr(install, "_install", lambda names: pytest.fail("installs"))
    assert install.main([]) == 1
    assert "needs root" in capsys.readouterr().err


def test_where_all_is_there_docker_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(install, "_ask_dpkg", lambda packages: {package.name for package in packages})
    monkeypatch.setattr(install, "_docker_answers", lambda: pytest.fail("asks Docker"))
    assert install.main([]) == 0


def test_what_the_cluster_s_doctor_looks_for_is_in_the_list() -> None:
    listed = {package.name for package in install.parse_packages(install.PACKAGE_LIST.read_text(encoding="utf-8"))}
    missing = doctor.missing_for_node(which=lambda program: None, cni=Path("/nonexistent"), is_root=True)
    assert {item.package for item in missing if item.package} <= listed


def test_what_the_large_engines_need_is_installed_for_their_tests_only() -> None:
    listed = [install.Package("make", "always", "x"), install.Package("libnuma1", "engines", "x")]
    assert install.lacking(listed, set(), docker=False) == listed[:1]
    assert install.lacking(listed, set(), docker=False, extra={"engines"}) == listed
    assert install.lacking(listed, {"make"}, docker=True, extra={"engines"}) == listed[1:]
