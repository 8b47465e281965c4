"""The life of a control plane that hack.cluster starts: found again, surviving faults, gone without a trace."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from hack.cluster.api import Cluster, ClusterOptions, down, status, up
from hack.cluster.errors import ClusterError
from hack.cluster.host.layout import Layout
from hack.cluster.host.leftovers import Footprint

OPTIONS = ClusterOptions(name="selftest", provider="host", control_plane_only=True, gpus=8)


@pytest.fixture(scope="module", autouse=True)
def _gone_afterwards() -> Iterator[None]:
    yield
    down(OPTIONS.name)


@pytest.fixture
def selftest() -> Cluster:
    """A healthy cluster, whatever the test before did to it."""
    return up(OPTIONS)


def kubectl(cluster: Cluster, *arguments: str) -> str:
    command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def pids() -> dict[str, int]:
    return {component.component: component.pid for component in status(OPTIONS.name)}


def test_a_second_up_finds_the_first(selftest: Cluster) -> None:
    before = pids()
    assert up(OPTIONS) == selftest
    assert pids() == before


def test_a_running_control_plane_is_not_taken_for_a_cluster_with_a_node(selftest: Cluster) -> None:
    with pytest.raises(ClusterError):
        up(ClusterOptions(name=selftest.options.name, provider="host"))


def test_fake_nodes_carry_the_gpus_that_were_asked_for(selftest: Cluster) -> None:
    selftest.add_fake_node("mine", 4)
    up(ClusterOptions(name=OPTIONS.name, provider="host", control_plane_only=True, gpus=10))
    path = r"jsonpath={range .items[*]}{.metadata.name}={.status.allocatable.nvidia\.com/gpu} {end}"
    assert kubectl(selftest, "get", "nodes", "-o", path).split() == ["gpu-0=8", "gpu-1=2", "mine=4"]
    kubectl(selftest, "delete", "node", "mine")


def test_a_killed_api_server_comes_back_with_its_data(selftest: Cluster) -> None:
    kubectl(selftest, "create", "configmap", "kept", "--from-literal=a=b")
    before = selftest.pid("kube-apiserver")
    selftest.kill("kube-apiserver")
    selftest.start("kube-apiserver")
    selftest.wait_until_ready()
    assert selftest.pid("kube-apiserver") != before
    assert kubectl(selftest, "get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    kubectl(selftest, "delete", "configmap", "kept")


def test_a_frozen_component_goes_on_when_told(selftest: Cluster) -> None:
    selftest.signal("etcd", signal.SIGSTOP)
    with pytest.raises(subprocess.CalledProcessError):
        kubectl(selftest, "create", "configmap", "frozen", "--request-timeout=1s")
    selftest.signal("etcd", signal.SIGCONT)
    selftest.wait_until_ready()


def test_the_audit_log_tells_writes_by_user_and_no_reads(selftest: Cluster) -> None:
    kubectl(selftest, "create", "configmap", "counted")
    kubectl(selftest, "get", "configmap", "counted")
    kubectl(selftest, "delete", "configmap", "counted")
    events = [json.loads(line) for line in selftest.audit_log.read_text().splitlines()]
    ours = [event["verb"] for event in events if event.get("objectRef", {}).get("name") == "counted"]
    assert ours == ["create", "delete"]
    assert {event["verb"] for event in events} <= {"create", "update", "patch", "delete", "deletecollection"}


def test_a_cluster_that_died_with_the_machine_is_replaced(selftest: Cluster) -> None:
    before = pids()
    for component in before:
        selftest.kill(component)
    up(OPTIONS)
    assert set(pids()) == set(before)
    assert not set(pids().values()) & set(before.values())


def test_down_leaves_nothing(selftest: Cluster) -> None:
    down(selftest.options.name)
    assert Footprint.of(Layout.of(selftest.options.name)).describe(with_node=False) == []
    assert status(selftest.options.name) == []
