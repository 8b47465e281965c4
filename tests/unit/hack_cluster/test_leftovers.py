"""What belongs to a cluster is told from what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.cluster.host import network, sysctls
from hack.cluster.host.cleanup import is_result_of, kill_turn, remove_cluster, shim_socket
from hack.cluster.host.layout import Layout
from hack.cluster.host.leftovers import Footprint, belongs, in_container, parse_mounts

BIN = Path("/cache/bin")


@pytest.fixture
def here() -> Layout:
    return Layout("moorage", Path("/state/moorage"), Path("/run/moorage/moorage"))


def test_mounts_are_found_latest_first_and_only_in_our_folders() -> None:
    mountinfo = (
        "22 1 8:1 / / rw - ext4 /dev/vda rw\n"
        "30 22 0:4 net:[4] /run/moorage/moorage/containerd/netns/cni-1 rw shared:1 - nsfs nsfs rw\n"
        "31 22 0:40 / /state/moorage/kubelet/pods/1/volumes/a\\040b rw - tmpfs tmpfs rw\n"
        "32 22 0:41 / /state/moorage2/kubelet rw - tmpfs tmpfs rw\n"
    )
    found = parse_mounts(mountinfo, (Path("/state/moorage"), Path("/run/moorage/moorage")))
    assert found == [
        Path("/state/moorage/kubelet/pods/1/volumes/a b"),
        Path("/run/moorage/moorage/containerd/netns/cni-1"),
    ]


@pytest.mark.parametrize(
    ("executable", "argument", "expected"),
    [
        ("/cache/bin/etcd-1/etcd", "--data-dir=/state/moorage/etcd", True),
        ("/cache/bin/containerd-1/containerd-shim-runc-v2", "/run/moorage/moorage/containerd.sock", True),
        ("/cache/bin/etcd-1/etcd", "--data-dir=/state/moorage2/etcd", False),
        ("/usr/bin/etcd", "--data-dir=/state/moorage/etcd", False),
        ("/cache/bin/kubectl-1/kubectl", "--kubeconfig=/state/moorage/kubeconfig", False),
    ],
)
def test_a_component_is_our_binary_with_our_path(executable: str, argument: str, expected: bool, here: Layout) -> None:
    assert belongs(executable, [executable, argument], here, BIN) is expected


def test_a_process_in_a_container_of_ours_is_found_in_both_cgroup_versions() -> None:
    ours = frozenset({"abc"})
    assert in_container("9:memory:/k8s.io/abc\n0::/k8s.io/abc\n", ours)
    assert in_container("0::/k8s.io/abc/init\n", ours)
    assert not in_container("0::/user.slice/abcd\n", ours)


def test_without_containers_no_process_is_in_one() -> None:
    assert not in_container("0::/\n", frozenset())


def test_container_ids_come_from_the_shims_folders(layout: Layout) -> None:
    (layout.run / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io" / "1f").mkdir(parents=True)
    assert Footprint.of(layout).containers == {"1f"}


def test_an_interface_is_ours_by_its_alias() -> None:
    links = [
        {"ifname": "lo"},
        {"ifname": "moorage0", "ifalias": "moorage-e2e-1f"},
        {"ifname": "moorage1", "ifalias": "moorage-moorage-2e"},
        {"ifname": "moorage2"},
    ]
    assert network.parse_interfaces(json.dumps(links), "moorage-moorage-2e") == ["moorage1"]
    assert network.parse_interfaces("", "moorage-moorage-2e") == []


def test_only_our_tables_are_found() -> None:
    listed = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "kube-proxy", "handle": 1}},
            {"table": {"family": "ip", "name": "filter", "handle": 2}},
        ]
    }
    assert network.parse_tables(json.dumps(listed), {"kube-proxy"}) == [("ip", "kube-proxy")]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /proc/sys."""
    monkeypatch.setattr(sysctls, "SYSCTL_ROOT", tmp_path / "sys")
    for name, value in (("kernel/panic", "1"), ("net/ipv4/ip_forward", "0"), ("kernel/other", "7")):
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(value)
    return tmp_path / "sys"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder that stands for /run/moorage."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_changed_kernel_settings_are_put_back_and_others_never_written(kernel: Path, runs: Path) -> None:
    sysctls.save_sysctls(runs)
    for name in ("kernel/panic", "net/ipv4/ip_forward", "kernel/other"):
        (kernel / name).write_text("10")
    sysctls.restore_sysctls(runs)
    assert [(kernel / name).read_text() for name in ("kernel/panic", "net/ipv4/ip_forward")] == ["1", "0"]
    assert (kernel / "kernel/other").read_text() == "10"
    assert list(runs.iterdir()) == []


def test_cluster_17_kernel_settings_are_put_back_by_the_last_cluster_only(kernel: Path, runs: Path) -> None:
    forward = kernel / "net/ipv4/ip_forward"
    sysctls.save_sysctls(runs)
    forward.write_text("1")
    sysctls.save_sysctls(runs)
    (runs / "another-1f").mkdir()
    sysctls.restore_sysctls(runs)
    assert forward.read_text() == "1"
    (runs / "another-1f").rmdir()
    sysctls.restore_sysctls(runs)
    assert forward.read_text() == "0"


def test_shim_sockets_are_read_in_both_forms() -> None:
    assert shim_socket("unix:///run/containerd/s/1f") == Path("/run/containerd/s/1f")
    assert shim_socket('{"address": "unix:///run/containerd/s/2e"}') == Path("/run/containerd/s/2e")
    assert shim_socket("{broken") is None
    assert shim_socket("") is None


def test_network_results_are_ours_by_their_namespace(here: Layout) -> None:
    assert is_result_of(here, '{"netns": "/run/moorage/moorage/containerd/netns/cni-1"}')
    assert not is_result_of(here, '{"netns": "/var/run/netns/cni-1"}')
    assert not is_result_of(here, "broken")


def test_containers_die_before_their_shims_and_after_the_kubelet() -> None:
    order = sorted(["/b/containerd-shim-runc-v2", "/usr/bin/python3", "/b/kubelet"], key=kill_turn)
    assert order == ["/b/kubelet", "/usr/bin/python3", "/b/containerd-shim-runc-v2"]


def test_removing_what_is_not_there_is_fine(layout: Layout) -> None:
    remove_cluster(layout)


def test_removing_a_half_started_control_plane_leaves_nothing(layout: Layout) -> None:
    (layout.root / "pki").mkdir(parents=True)
    (layout.root / "pki" / "ca.crt").touch()
    layout.record.write_text("{ half")
    remove_cluster(layout)
    assert not layout.root.exists()


def test_logs_outlive_a_failed_start(layout: Layout) -> None:
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True)
    layout.log("etcd").write_text("why")
    remove_cluster(layout, keep_logs=True)
    assert layout.log("etcd").read_text() == "why"
    assert not (layout.root / "pki").exists()
