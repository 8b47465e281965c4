"""Folders by XDG, records that survive a restart, ports that collide with nobody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hack.cluster import paths
from hack.cluster.errors import ClusterError
from hack.cluster.host.layout import Layout, Record, pick_endpoints
from hack.cluster.options import ClusterOptions


def test_folders_follow_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert paths.cache_root() == Path("/c/moorage")
    assert Layout.of("x").kubeconfig == Path("/s/moorage/clusters/x/kubeconfig")


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert paths.cache_root() == Path.home() / ".cache" / "moorage"


def test_a_record_is_read_back(layout: Layout) -> None:
    layout.root.mkdir(parents=True)
    options = ClusterOptions("test", control_plane_only=True, gpus=8)
    record = Record(options, pick_endpoints(control_plane_only=True), ready=True, sysctls={"kernel/panic": "1"})
    record.write(layout)
    assert Record.read(layout) == record


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"options": {}, "endpoints": {"nonsense": 1}}'])
def test_a_broken_record_is_no_cluster(layout: Layout, text: str) -> None:
    layout.root.mkdir(parents=True)
    layout.record.write_text(text)
    assert Record.read(layout) is None


def test_a_taken_port_is_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        order = [port, *range(20000, 20499)]
        monkeypatch.setattr("hack.cluster.host.layout.random.sample", lambda *_: order)
        endpoints = pick_endpoints(control_plane_only=True)
    assert port not in (endpoints.api_port, endpoints.etcd_client)


def test_ports_differ_from_each_other() -> None:
    endpoints = pick_endpoints(control_plane_only=True)
    ports = [value for name, value in vars(endpoints).items() if name != "api_address"]
    assert len(ports) == len(set(ports))


def test_a_home_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    deep = Layout("x", tmp_path / ("d" * 90), tmp_path / "run")
    with pytest.raises(ClusterError, match="too long"):
        deep.check_socket_paths()
