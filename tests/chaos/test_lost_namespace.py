"""A namespace, a RoleBinding, a right or the CRD is away for a while: nothing else stops, and nothing is restarted."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from hack.cluster.api import Cluster
from moorage_operator.health import SILENT_LIMIT
from tests.chaos.bed import SMALL, Bed
from tests.chaos.pace import FULL
from tests.chaos.test_refusals import rights_without
from tests.chaos.world import serving
from tests.support.api import Api, Object, condition, is_ready, reason
from tests.support.models import model
from tests.support.operator import ROOT, OperatorProcess, kubeconfig_of, kubectl

AWAY = SILENT_LIMIT + 60 if FULL else 3.0
"""For how long something is away: in full, longer than the liveness probe lets a watch be silent."""
BACK_LIMIT = 10.0
"""Seconds until it is served again."""
SYSTEM = "lost-system"
A, B = "lost-a", "lost-b"


@dataclass
class Tenants:
    """An operator with rights in two namespaces, and what the chart makes to give it those."""

    cluster: Cluster
    roles: list[Object]
    operator: OperatorProcess
    a: Api
    b: Api

    def allow(self, *namespaces: str) -> None:
        """Apply the Roles and RoleBindings of these namespaces."""
        found = [role for role in self.roles if role["metadata"]["namespace"] in namespaces]
        kubectl(self.cluster, "apply", "-f", "-", stdin=yaml.safe_dump_all(found))

    def goes_on(self, seconds: float) -> None:
        """The other namespace is served, and the operator is alive and ready, for as long."""
        end = time.monotonic() + seconds
        replicas = 1
        while True:
            replicas = 3 - replicas
            scale(self.a, replicas)
            assert self.operator.is_alive()
            assert self.operator.not_ready() == ""
            assert livez(self.operator) == 200
            if time.monotonic() > end:
                return
            time.sleep(min(5.0, seconds))  # the pace of the changes


def scale(api: Api, replicas: int, *, seconds: float = BACK_LIMIT) -> None:
    """Change the model of a namespace; that is acted on in time."""
    api.patch("InferenceModel", "tiny", {"spec": {"replicas": replicas}})
    api.wait(
        "InferenceModel",
        "tiny",
        lambda im: bool(im) and serving(im or {}) and (im or {})["spec"]["replicas"] == replicas,
        what=f"{replicas} replicas",
        seconds=seconds,
    )


def livez(operator: OperatorProcess) -> int:
    """What the kubelet's liveness probe gets."""
    return httpx.get(f"http://127.0.0.1:{operator.liveness_port}/livez", timeout=5, trust_env=False).status_code


def unwatched(operator: OperatorProcess) -> list[str]:
    """What /readyz says cannot be watched."""
    found: list[str] = httpx.get(f"http://127.0.0.1:{operator.port}/readyz", trust_env=False).json()["unwatched"]
    return found


def wait_until(operator: OperatorProcess, *, names: str, lost: bool, seconds: float = 60) -> None:
    """Wait until /readyz names what is lost, or names it no more."""
    deadline = time.monotonic() + seconds
    while any(names in said for said in unwatched(operator)) != lost:
        assert time.monotonic() < deadline, unwatched(operator)
        time.sleep(0.05)  # readiness is asked, as the kubelet does; there is nothing to wait on


@pytest.fixture
def tenants(cluster: Cluster, admin: Api, tmp_path: Path) -> Iterator[Tenants]:
    """A model serves in each of the two namespaces."""
    chart = [str(cluster.helm), "template", "lost", str(ROOT / "charts" / "moorage"), "--namespace", SYSTEM]
    values = ["--set", f"watchNamespaces={{{A},{B}}}"]
    rendered = subprocess.run([*chart, *values], text=True, capture_output=True, check=True).stdout
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    roles = [found for found in yaml.safe_load_all(rendered) if found and found["kind"] in kinds]
    for name in (SYSTEM, A, B):
        kubectl(cluster, "create", "namespace", name)
    kubeconfig, log = tmp_path / "kubeconfig", tmp_path / "operator.log"
    settings = {"MOORAGE_WATCH_NAMESPACES": f"{A},{B}", "MOORAGE_NAMESPACE": SYSTEM}
    operator = OperatorProcess(kubeconfig, log, **settings)
    found = Tenants(cluster, roles, operator, admin.at(A), admin.at(B))
    found.allow(SYSTEM, A, B)
    kubeconfig_of(cluster, kubeconfig, namespace=SYSTEM)
    try:
        operator.start()
        for api in (found.a, found.b):
            make_model(api)
        yield found
        assert operator.errors() == []
    finally:
        operator.kill()
        kubectl(cluster, "delete", "namespace", SYSTEM, A, B, "--ignore-not-found", "--timeout=90s", check=False)


def make_model(api: Api, seconds: float = 60) -> None:
    api.create(model("tiny", **SMALL))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready", seconds=seconds)


def cut_watches(tenants: Tenants) -> None:
    """RBAC is asked when a watch begins: those that are open go on for up to 50 s more."""
    wait_until(tenants.operator, names=B, lost=True, seconds=75)


def test_cluster_01_a_role_binding_is_lost_and_comes_back(tenants: Tenants) -> None:
    process = tenants.operator.process
    kubectl(tenants.cluster, "-n", B, "delete", "rolebinding", "--all")
    cut_watches(tenants)
    tenants.goes_on(AWAY)
    tenants.b.patch("InferenceModel", "tiny", {"spec": {"replicas": 2}})
    tenants.b.delete("Service", "tiny")
    tenants.allow(B)
    wait_until(tenants.operator, names=B, lost=False, seconds=BACK_LIMIT)
    tenants.b.wait("Service", "tiny", lambda found: found is not None, what="the Service again", seconds=BACK_LIMIT)
    tenants.b.wait("InferenceModel", "tiny", lambda im: bool(im) and serving(im or {}), what="2 replicas")
    assert tenants.operator.process is process
    told = [line for line in tenants.operator.log.read_text().splitlines() if '"cannot watch; trying again"' in line]
    assert 1 <= len(told) <= 6, "each kind once"


def test_cluster_01_a_namespace_is_deleted_and_made_again(tenants: Tenants) -> None:
    process = tenants.operator.process
    kubectl(tenants.cluster, "delete", "namespace", B, "--timeout=90s")
    cut_watches(tenants)
    tenants.goes_on(AWAY)
    kubectl(tenants.cluster, "create", "namespace", B)
    tenants.allow(B)
    make_model(tenants.b, seconds=BACK_LIMIT)
    wait_until(tenants.operator, names=B, lost=False, seconds=BACK_LIMIT)
    scale(tenants.b, 2)
    assert tenants.operator.process is process


def test_cluster_01_an_operator_starts_while_a_namespace_is_away(tenants: Tenants) -> None:
    tenants.operator.kill()
    kubectl(tenants.cluster, "-n", B, "delete", "rolebinding", "--all")
    assert tenants.operator.start() < BACK_LIMIT
    assert any(B in said for said in unwatched(tenants.operator))
    tenants.goes_on(0)
    tenants.allow(B)
    scale(tenants.b, 2)


def test_cluster_01_the_right_to_see_nodes_is_lost(bed: Bed) -> None:
    bed.create()
    bed.settles()
    with rights_without(bed, "nodes", verb="list"):
        bed.proxy.cut("nodes")
        wait_until(bed.operator, names="nodes", lost=True)
        bed.create("more-than-any-node", gpu={"count": 16})
        waits = bed.api.wait(
            "InferenceModel", "more-than-any-node", lambda im: reason(im) == "WaitingForGPU", what="WaitingForGPU"
        )
        assert "no node has" not in condition(waits, "Ready")["message"], "that cannot be known"
        scale(bed.api, 2)
        assert bed.operator.not_ready() == ""
    bed.api.wait(
        "InferenceModel", "more-than-any-node", lambda im: reason(im) == "NoSuchResource", what="NoSuchResource"
    )
    assert unwatched(bed.operator) == []
    bed.api.delete("InferenceModel", "more-than-any-node")
    bed.converges()


def test_cluster_01_the_crd_is_away_for_a_while(bed: Bed, garbage_collector: None) -> None:
    process = bed.operator.process
    bed.create()
    bed.settles()
    crd = kubectl(bed.cluster, "get", "crd", "inferencemodels.moorage.dev", "-o", "yaml")
    kubectl(bed.cluster, "delete", "crd", "inferencemodels.moorage.dev", "--timeout=60s")
    try:
        wait_until(bed.operator, names="inferencemodels", lost=True)
        assert not bed.operator.ends_within(AWAY)
        assert bed.operator.not_ready() == ""
        assert livez(bed.operator) == 200
    finally:
        made = {key: value for key, value in yaml.safe_load(crd).items() if key != "status"}
        made["metadata"] = {key: made["metadata"][key] for key in ("name", "annotations")}
        kubectl(bed.cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(made))
        kubectl(bed.cluster, "wait", "--for=condition=Established", "crd/inferencemodels.moorage.dev")
    wait_until(bed.operator, names="inferencemodels", lost=False, seconds=BACK_LIMIT)
    bed.create("again")
    bed.api.wait("InferenceModel", "again", is_ready, what="Ready")
    assert bed.operator.process is process
    assert bed.operator.errors() == []
