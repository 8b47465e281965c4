"""Folders by XDG, records that survive a restart, ports that collide with nobody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hack.cluster import paths
from hack.cluster.errors import ClusterError
from hack.cluster.host.addresses import Addresses
from hack.cluster.host.layout import Layout, Record, chosen_ports, pick_endpoints
from hack.cluster.options import ClusterOptions

_ADDRESSES = ("link", "transit", "host", "uplink", "node", "pods", "services", "first_service")


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
    record = Record(options, pick_endpoints(None), ready=True)
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
        endpoints = pick_endpoints(None)
    assert port not in (endpoints.api_port, endpoints.etcd_client)


def test_ports_differ_from_each_other() -> None:
    endpoints = pick_endpoints(None)
    ports = [value for name, value in vars(endpoints).items() if name not in ("number", "api_address")]
    assert len(ports) == len(endpoints.ports) == 9


def test_cluster_17_ports_that_another_cluster_has_chosen_are_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hack.cluster.host.layout.random.sample", lambda *_: list(range(20000, 20500)))
    first = pick_endpoints(None)
    assert not first.ports & pick_endpoints(None, first.ports).ports


def test_cluster_17_the_ports_of_recorded_clusters_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert chosen_ports() == set()
    layout = Layout.of("starting")
    layout.root.mkdir(parents=True)
    endpoints = pick_endpoints(None)
    Record(ClusterOptions("starting", control_plane_only=True), endpoints, ready=False).write(layout)
    assert chosen_ports() == endpoints.ports


def test_cluster_17_clusters_of_one_name_in_two_state_folders_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/a")
    first = Layout.of("moorage")
    monkeypatch.setenv("XDG_STATE_HOME", "/b")
    second = Layout.of("moorage")
    assert first.root != second.root
    assert first.run != second.run


def test_cluster_17_two_clusters_with_nodes_share_no_address() -> None:
    mine, others = (
        {address for name in _ADDRESSES if (address := getattr(Addresses(number), name))} for number in (0, 1)
    )
    assert len(mine) == len(_ADDRESSES)
    assert not mine & others


def test_a_home_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    deep = Layout("x", tmp_path / ("d" * 90), tmp_path / "run")
    with pytest.raises(ClusterError, match="too long"):
        deep.check_socket_paths()
