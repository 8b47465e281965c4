"""The life of a control plane that hack.cluster starts: found again, surviving faults, gone without a trace."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hack.cluster.api import Cluster, ClusterOptions, down, status, up
from hack.cluster.errors import ClusterError
from hack.cluster.host.client import ApiClient
from hack.cluster.host.layout import Layout
from hack.cluster.host.leftovers import Footprint
from hack.cluster.host.objects import NODES_PATH, fake_node
from hack.cluster.paths import clusters_root
from tests.support.clusters import own_cluster, own_name
from tests.support.operator import ROOT, install


@pytest.fixture(scope="module")
def options() -> Iterator[ClusterOptions]:
    """A control plane of a name that nobody else uses."""
    with own_name("selftest") as name:
        yield ClusterOptions(name=name, provider="host", control_plane_only=True, gpus=8)
        down(name)


@pytest.fixture
def selftest(options: ClusterOptions) -> Cluster:
    """A healthy cluster, whatever the test before did to it."""
    return up(options)


def kubectl(cluster: Cluster, *arguments: str) -> str:
    command = [str(cluster.kubectl), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def pids(cluster: Cluster) -> dict[str, int]:
    return {component.component: component.pid for component in status(cluster.options.name)}


def test_a_second_up_finds_the_first(selftest: Cluster) -> None:
    before = pids(selftest)
    assert up(selftest.options) == selftest
    assert pids(selftest) == before


def test_a_running_control_plane_is_not_taken_for_a_cluster_with_a_node(selftest: Cluster) -> None:
    with pytest.raises(ClusterError):
        up(ClusterOptions(name=selftest.options.name, provider="host"))


def test_fake_nodes_carry_the_gpus_that_were_asked_for(selftest: Cluster) -> None:
    selftest.add_fake_node("mine", 4)
    up(replace(selftest.options, gpus=10))
    path = r"jsonpath={range .items[*]}{.metadata.name}={.status.allocatable.nvidia\.com/gpu} {end}"
    assert kubectl(selftest, "get", "nodes", "-o", path).split() == ["gpu-0=8", "gpu-1=2", "mine=4"]
    kubectl(selftest, "delete", "node", "mine")


def test_only_pods_that_ask_for_gpus_go_to_a_fake_node_beside_a_real_one(selftest: Cluster) -> None:
    node = fake_node("beside", 1, tainted=True)
    node["metadata"]["labels"]["beside"] = "yes"
    ApiClient(selftest.kubeconfig).create(NODES_PATH, node)
    for name, resources in (("plain", {}), ("gpu", {"limits": {"nvidia.com/gpu": "1"}})):
        container = {"name": "a", "image": "localhost/a", "resources": resources}
        pod = {"spec": {"nodeSelector": {"beside": "yes"}, "containers": [container]}}
        kubectl(selftest, "run", name, "--image=localhost/a", f"--overrides={json.dumps(pod)}")
    kubectl(selftest, "wait", "pod/gpu", "--for=condition=PodScheduled", "--timeout=30s")
    untolerated = 'jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'
    kubectl(selftest, "wait", "pod/plain", f"--for={untolerated}", "--timeout=30s")
    kubectl(selftest, "delete", "pod", "plain", "gpu", "--now")
    kubectl(selftest, "delete", "node", "beside")


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
    before = pids(selftest)
    for component in before:
        selftest.kill(component)
    up(selftest.options)
    assert set(pids(selftest)) == set(before)
    assert not set(pids(selftest).values()) & set(before.values())


def test_down_leaves_nothing(selftest: Cluster) -> None:
    down(selftest.options.name)
    assert Footprint.of(Layout.of(selftest.options.name)).describe(with_node=False) == []
    assert status(selftest.options.name) == []


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster of `make demo`, in a folder where nobody has one yet, with a release and what people make."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    cluster = up(ClusterOptions(provider="host", control_plane_only=True, gpus=8))
    try:
        release = ("upgrade", "--install", "moorage", str(ROOT / "charts" / "moorage"), "--set", "clusterWide=true")
        command = [str(cluster.helm), "--kubeconfig", str(cluster.kubeconfig), *release]
        subprocess.run([*command, "-n", "moorage-system", "--create-namespace"], check=True, capture_output=True)
        kubectl(cluster, "create", "namespace", "team-a")
        kubectl(cluster, "-n", "team-a", "create", "secret", "generic", "mine", "--from-literal=a=b")
        yield cluster
    finally:
        down(cluster.options.name)


def contents(cluster: Cluster) -> str:
    """What is there, in which version; of nodes only that they are there, as they tell the time."""
    version = (
        "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{'\\n'}{end}"
    )
    kinds = "namespaces,secrets,deployments,serviceaccounts,priorityclasses,customresourcedefinitions"
    nodes = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{'\\n'}{end}"
    return kubectl(cluster, "get", kinds, "-A", "-o", version) + kubectl(cluster, "get", "nodes", "-o", nodes)


def test_cluster_17_a_test_run_leaves_the_cluster_of_the_demo_as_it_was(demo: Cluster) -> None:
    before, running = contents(demo), status(demo.options.name)
    assert "Secret sh.helm.release.v1.moorage.v1" in before
    with own_cluster("beside", control_plane_only=True, gpus=8) as cluster:
        assert cluster.options.name != demo.options.name
        install(cluster)
        kubectl(cluster, "delete", "node", "gpu-0")
        kubectl(cluster, "create", "namespace", "team-a")
    assert contents(demo) == before
    assert status(demo.options.name) == running
    assert all(component.alive for component in running)
    assert Footprint.of(Layout.of(cluster.options.name)).describe(with_node=False) == []
    assert [path.name for path in clusters_root().iterdir() if not path.name.startswith(".")] == [demo.options.name]


def test_cluster_17_what_a_killed_test_run_left_is_gone_after_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    # Nobody ends it, and one of its parts has died: so a run that was killed leaves its cluster.
    with own_name("beside") as name:
        up(ClusterOptions(name=name, provider="host", control_plane_only=True)).kill("etcd")
    with own_cluster("beside", control_plane_only=True) as cluster:
        assert cluster.options.name == name
        assert kubectl(cluster, "get", "--raw", "/readyz") == "ok"
    assert Footprint.of(Layout.of(cluster.options.name)).describe(with_node=False) == []


def test_cluster_17_two_runs_of_the_tests_in_one_checkout_have_different_clusters() -> None:
    with own_name("beside") as first, own_name("beside") as second:
        assert first != second
    with own_name("beside") as third:
        assert third == first
