"""The chart's admission policies: what its values make of them, and that the API server understands them."""

import subprocess
import time

import yaml

from hack.cluster.api import Cluster
from tests.support.api import Api, Object
from tests.support.operator import ROOT

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def rendered(cluster: Cluster, *settings: str, flags: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """What helm makes of the chart with these values, and with other flags."""
    command = [str(cluster.helm), "template", "moorage", str(ROOT / "charts" / "moorage")]
    return subprocess.run(
        [*command, *flags, *(f"--set={setting}" for setting in settings)], text=True, capture_output=True, check=False
    )


def policies(cluster: Cluster, *settings: str) -> dict[str, list[str]]:
    """The policies by name, with what their bindings do."""
    done = rendered(cluster, *settings)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    bindings = [found["spec"] for found in objects if found["kind"] == "ValidatingAdmissionPolicyBinding"]
    names = {found["metadata"]["name"] for found in objects if found["kind"] == "ValidatingAdmissionPolicy"}
    actions = {binding["policyName"]: binding["validationActions"] for binding in bindings}
    assert set(actions) == names
    return actions


def test_the_values_choose_the_policies(cluster: Cluster) -> None:
    image, unpinned = "moorage-runtime-image", "moorage-unpinned-models"
    assert policies(cluster) == {image: ["Deny"], unpinned: ["Warn"]}
    assert policies(cluster, "admissionPolicies.unpinnedModels=Deny") == {image: ["Deny"], unpinned: ["Deny"]}
    assert policies(cluster, "admissionPolicies.unpinnedModels=Allow") == {image: ["Deny"]}
    assert policies(cluster, "admissionPolicies.enabled=false") == {}


def test_a_value_that_the_chart_does_not_know_is_refused(cluster: Cluster) -> None:
    for setting in (
        "admissionPolicies.unpinnedModels=Never",
        "admissionPolicies.enabled=often",
        "admissionPolicies.x=1",
    ):
        done = rendered(cluster, setting)
        assert done.returncode != 0
        assert "admissionPolicies" in done.stderr


def test_only_the_role_for_administrators_has_the_verb(cluster: Cluster) -> None:
    objects = [found for found in yaml.safe_load_all(rendered(cluster).stdout) if found]
    holders = {
        found["metadata"]["name"]: found["metadata"]["labels"]
        for found in objects
        if any({"use-custom-image", "*"} & set(rule["verbs"]) for rule in found.get("rules", ()))
    }
    assert set(holders) == {"moorage-admin"}
    aggregated = [label for label in holders["moorage-admin"] if "aggregate-to" in label]
    assert aggregated == ["rbac.authorization.k8s.io/aggregate-to-admin"]


def test_the_api_server_finds_no_fault_with_the_expressions(admin: Api) -> None:
    deadline = time.monotonic() + 60
    while pending := [found for found in _installed(admin) if "observedGeneration" not in found.get("status", {})]:
        assert time.monotonic() < deadline, pending
        time.sleep(0.1)  # the controller that checks types has just been restarted
    found = _installed(admin)
    assert len(found) == 2
    assert [policy["status"].get("typeChecking") for policy in found] == [{}, {}]


def _installed(admin: Api) -> list[Object]:
    items: list[Object] = admin.request("GET", POLICIES)["items"]
    return [found for found in items if found["metadata"]["name"].startswith("moorage-")]
