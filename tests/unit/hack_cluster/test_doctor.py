"""What is missing is named with the command that brings it, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from hack.cluster import api, doctor
from hack.cluster.doctor import Missing, describe, missing_for_node
from hack.cluster.errors import ClusterError, MissingPrerequisitesError
from hack.cluster.options import ClusterOptions


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    for name in doctor.NODE_CNI_PLUGINS:
        (tmp_path / name).touch()
    return tmp_path


def test_a_complete_machine_lacks_nothing(plugins: Path) -> None:
    assert missing_for_node(which=lambda name: f"/bin/{name}", cni=plugins, is_root=True) == []


def test_each_missing_program_is_named_with_its_package(plugins: Path) -> None:
    found = missing_for_node(which=lambda name: None if name == "nft" else name, cni=plugins, is_root=True)
    assert found == [Missing("the program nft", package="nftables")]


def test_missing_plugins_and_rights_are_named(tmp_path: Path) -> None:
    found = missing_for_node(which=lambda name: name, cni=tmp_path, is_root=False)
    assert {item.package for item in found} == {"containernetworking-plugins", ""}
    assert "--control-plane-only" in found[-1].remedy


def test_one_command_installs_all_packages() -> None:
    text = describe([Missing("a", package="runc"), Missing("b", package="nftables"), Missing("c", package="runc")])
    assert text.endswith("apt-get install -y --no-install-recommends nftables runc")


def test_up_refuses_before_it_starts_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("hack.cluster.host.provider.missing_for_host", lambda options: [Missing("x", package="runc")])
    with pytest.raises(MissingPrerequisitesError, match="nothing was started"):
        api.up(ClusterOptions(provider="host"))
    assert list(tmp_path.iterdir()) == []


def test_images_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"absent\.tar"):
        api.load_images("test", [tmp_path / "absent.tar"])
