"""Uninstalling the chart and installing it again, by helm itself: what models need stays."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import ROOT, OperatorProcess
from tests.support.waiting import eventually

PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
PREFIX = "kept-"
"""Other classes than those of the chart that all tests share."""


@dataclass
class Helm:
    """helm with a release namespace and values that do not meet what all tests share."""

    cluster: Cluster
    namespace: str

    def install(self, release: str, *settings: str, flags: tuple[str, ...] = (), fails: bool = False) -> str:
        """What `helm upgrade --install` prints."""
        values = (f"priorityClasses.prefix={PREFIX}", "crds.enabled=false", "admissionPolicies.enabled=false")
        sets = [f"--set={setting}" for setting in (*values, *settings)]
        chart = str(ROOT / "charts" / "moorage")
        return self._run("upgrade", "--install", release, chart, *sets, *flags, fails=fails)

    def uninstall(self, release: str) -> str:
        """What `helm uninstall` prints."""
        return self._run("uninstall", release)

    def _run(self, *args: str, fails: bool = False) -> str:
        kubeconfig = f"--kubeconfig={self.cluster.kubeconfig}"
        command = [str(self.cluster.helm), kubeconfig, f"--namespace={self.namespace}", *args]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        assert (done.returncode != 0) == fails, f"helm {' '.join(args)}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def classes(api: Api) -> set[str]:
    """The PriorityClasses of the release."""
    items = api.request("GET", PRIORITY_CLASSES)["items"]
    return {item["metadata"]["name"] for item in items if item["metadata"]["name"].startswith(PREFIX)}


ALL = {f"{PREFIX}{name}" for name in (*range(1, 11), "operator")}


def running(api: Api) -> set[str]:
    """The uids of the model's pods that run."""
    pods = api.find("Pod", "moorage.dev/model=tiny")
    return {found["metadata"]["uid"] for found in pods if found["status"]["phase"] == "Running"}


@pytest.fixture
def helm(cluster: Cluster, api: Api) -> Iterator[Helm]:
    """helm in the test's namespace; its PriorityClasses go at the end."""
    yield Helm(cluster, api.namespace)
    for name in classes(api):
        api.request("DELETE", f"{PRIORITY_CLASSES}/{name}")


def test_cluster_12_models_go_on_after_an_uninstall(
    helm: Helm, api: Api, operator_kubeconfig: Path, tmp_path: Path
) -> None:
    helm.install("first")
    assert classes(api) == ALL
    operator = OperatorProcess(operator_kubeconfig, tmp_path / "log", MOORAGE_PRIORITY_CLASS_PREFIX=PREFIX)
    operator.start()
    try:
        api.create(model("tiny"))
        api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    finally:
        operator.stop()
    assert f"[PriorityClass] {PREFIX}5" in helm.uninstall("first")
    assert classes(api) == ALL
    (before,) = api.find("Pod", "moorage.dev/model=tiny")
    api.delete("Pod", before["metadata"]["name"])
    eventually(lambda: running(api) - {before["metadata"]["uid"]}, "another pod runs, without any operator")


def test_cluster_12_classes_are_deleted_when_keep_is_off(helm: Helm, api: Api) -> None:
    helm.install("first")
    helm.install("first", "priorityClasses.keep=false")
    helm.uninstall("first")
    assert classes(api) == set()


def test_cluster_15_what_was_kept_is_taken_by_the_same_name_and_by_another_one_that_is_told_to(
    helm: Helm, api: Api
) -> None:
    helm.install("first")
    helm.uninstall("first")
    helm.install("first")
    helm.uninstall("first")
    said = helm.install("second", fails=True)
    assert PREFIX in said
    assert 'must equal "second": current value is "first"' in said
    helm.install("second", flags=("--take-ownership",))
    owners = {
        item["metadata"]["annotations"]["meta.helm.sh/release-name"]
        for item in api.request("GET", PRIORITY_CLASSES)["items"]
        if item["metadata"]["name"] in ALL
    }
    assert owners == {"second"}
    helm.uninstall("second")
    assert classes(api) == ALL


def test_cluster_15_a_second_release_uses_the_classes_of_the_first(helm: Helm, cluster: Cluster, api: Api) -> None:
    other = f"{api.namespace}-second"
    api.request("POST", "/api/v1/namespaces", json={"metadata": {"name": other}})
    second = Helm(cluster, other)
    try:
        helm.install("first")
        second.install("second", "priorityClasses.create=false", f"operator.priorityClassName={PREFIX}operator")
        made = api.at(other).get("Deployment", "moorage-operator")
        assert made is not None
        assert made["spec"]["template"]["spec"]["priorityClassName"] == f"{PREFIX}operator"
        second.uninstall("second")
        helm.uninstall("first")
        assert classes(api) == ALL
    finally:
        api.request("DELETE", f"/api/v1/namespaces/{other}")
