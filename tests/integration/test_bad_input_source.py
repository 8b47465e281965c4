"""Bad addresses of models, by the rows of reliability.md, and what changes of an address do."""

import re

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, Object, is_ready, reason
from tests.support.models import model
from tests.support.operator import OperatorProcess
from tests.support.policies import chart_part, until_refused
from tests.support.refusals import assert_no_such_field, assert_says, refusal


@pytest.mark.parametrize(
    "uri", ["", "oci://", "oci://a b", "oci://a\nb", "oci://a\x00b", "pvc://claim/a b", "oci://Upper/x", "x" * 1025]
)
def test_bad_input_09_model_address(api: Api, uri: str) -> None:
    text = refusal(api, {"source": {"uri": uri}})
    assert_says(text, "spec.source.uri")
    assert re.search(r"at least 7 chars|must be|longer than 1024|may not be more than 1024", text), text


@pytest.mark.parametrize(
    "uri", ["file:///etc/passwd", "/abs/path", "hostpath:///var", "FILE:///x", "git://host/x", "OCI://a/b"]
)
def test_bad_input_10_scheme(api: Api, uri: str) -> None:
    assert_says(refusal(api, {"source": {"uri": uri}}), "spec.source.uri", uri, "oci://", "pvc://")


@pytest.mark.parametrize("path", ["../x", "a/../b", "a/%2e%2e/b", "a//b", "..", "a\\b", "./a", "a/..gguf/../x"])
def test_bad_input_11_pvc_path(api: Api, path: str) -> None:
    assert_says(refusal(api, {"source": {"uri": f"pvc://claim/{path}"}}), "spec.source.uri", "pvc://CLAIM/PATH", "'..'")


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254/latest", "10.0.0.1/x", "127.0.0.1/x", "[::1]/x", "metadata.google.internal/x"),
        *("user@host/x", "user:pw@host/x", "host\\@evil/x", "2852039166/x", "0xa9fea9fe/x", "example.org/x"),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "http", "hf", "s3"])
def test_bad_input_12_nothing_is_downloaded_by_url(api: Api, scheme: str, address: str) -> None:
    uri = f"{scheme}://{address}"
    text = refusal(api, {"source": {"uri": uri}})
    # The server quotes a value as JSON does.
    assert_says(text, "spec.source.uri", uri.replace("\\", "\\\\"), "the scheme must be oci://", "pvc://models/")


@pytest.mark.parametrize(
    "address", ["user@host/x", "user:pw@host/x:1", "host\\x", "[::1]/x", "host/x?y", "host/x#y", "host//x", "host/%2e"]
)
def test_bad_input_12_an_image_is_named_by_a_reference_only(api: Api, address: str) -> None:
    text = refusal(api, {"source": {"uri": f"oci://{address}"}})
    assert_says(text, "spec.source.uri", "must be an image reference", "for example oci://registry.example/")


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.169.254:80", "169.254.0.1", "metadata.google.internal"])
def test_bad_input_12_no_registry_is_where_a_cloud_keeps_its_secrets(api: Api, host: str) -> None:
    assert_says(refusal(api, {"source": {"uri": f"oci://{host}/latest"}}), "spec.source.uri", host, "metadata")


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("oci://registry.example/models/qwen2:7b", True),
        ("oci://registry.example/models/qwen2", True),
        (f"oci://registry.example/models/qwen2@{DIGEST}", False),
        (f"oci://registry.example/models/qwen2:7b@{DIGEST}", False),
        ("oci://localhost/models/qwen2:7b", False),
        ("pvc://models/qwen2.gguf", False),
    ],
)
def test_bad_input_13_a_tag_is_taken_with_a_warning(api: Api, policies: None, uri: str, warned: bool) -> None:
    wanted = model("pinned", source={"uri": uri})
    response = api.http.post(api.path("InferenceModel"), json=wanted, params={"dryRun": "All"})
    assert response.status_code == 201
    warning = response.headers.get("Warning", "")
    assert (uri in warning and "digest" in warning) is warned, warning


def test_bad_input_13_a_change_of_something_else_does_not_warn_again(api: Api, policies: None) -> None:
    api.create(model("tagged", source={"uri": "oci://registry.example/models/qwen2:7b"}))
    headers = {"Content-Type": "application/merge-patch+json"}
    path = api.path("InferenceModel", "tagged")
    same = api.http.patch(path, content='{"spec": {"priority": 7}}', headers=headers)
    other = api.http.patch(path, content='{"spec": {"source": {"uri": "oci://other.example/x"}}}', headers=headers)
    assert ("Warning" in same.headers, "Warning" in other.headers) == (False, True)


def test_bad_input_13_models_that_are_not_pinned_can_be_denied(api: Api, cluster: Cluster) -> None:
    def attempt() -> Object:
        return api.create(model("tagged", source={"uri": "oci://registry.example/models/qwen2:7b"}), dry_run=True)

    deny = "admissionPolicies.unpinnedModels=Deny"
    with chart_part(cluster, "strict", "templates/admission.yaml", deny, gone=attempt):
        said = until_refused(attempt)
        assert_says(said, "spec.source.uri", "oci://registry.example/models/qwen2:7b", "@sha256:DIGEST")
        api.create(model("by-digest", source={"uri": f"oci://registry.example/models/qwen2@{DIGEST}"}))
        api.create(model("local"))


def test_bad_input_14_remote_code_cannot_be_asked_for(api: Api) -> None:
    assert_no_such_field(api, "remote", trustRemoteCode=True)
    assert_no_such_field(api, "remote-too", source={"uri": "pvc://m/x", "trustRemoteCode": True})
    for framework in ("vllm", "transformers", "llamacpp"):
        text = refusal(api, {"framework": framework, "extraArgs": ["--trust-remote-code"]})
        assert_says(text, "spec.extraArgs", "--trust-remote-code", framework)


def template(obj: Object | None) -> Object:
    """The pods that a Deployment makes."""
    found: Object = (obj or {})["spec"]["template"]
    return found


def complete(obj: Object | None) -> bool:
    """Whether all pods are as the spec says, and answer."""
    return is_ready(obj) and reason(obj, "Progressing") == "Complete"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"source": {"uri": "pvc://models/other.gguf"}}, "/models/other.gguf"),
        ({"framework": "transformers", "runtimeImage": "localhost/moorage/other:1"}, "transformers"),
        ({"servedName": "another"}, "another"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_32_framework_and_address_may_change_and_the_pods_follow(
    api: Api, operator: OperatorProcess, change: Object, seen: str
) -> None:
    # Nothing of a model is kept from one spec to the next, so no field needs to be immutable: a change is a rollout.
    add_claim(api, "models")
    api.create(model("changed"))
    api.wait("InferenceModel", "changed", complete, what="serving")
    before = api.get("Deployment", "changed") or {}
    api.patch("InferenceModel", "changed", {"spec": change})
    after = api.wait("InferenceModel", "changed", complete, what="serving again")
    now = api.get("Deployment", "changed") or {}
    assert now["metadata"]["uid"] == before["metadata"]["uid"], "the address of the model stays"
    assert now["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "the old pod serves until the new one does"
    assert seen in str(template(now)["spec"]["containers"])
    assert seen not in str(template(before)["spec"]["containers"])
    (pod,) = [p for p in api.find("Pod", "moorage.dev/model=changed") if "deletionTimestamp" not in p["metadata"]]
    assert (
        pod["metadata"]["labels"]["moorage.dev/revision"] == template(now)["metadata"]["labels"]["moorage.dev/revision"]
    )
    assert (after or {})["status"]["observedGeneration"] == 2


def add_claim(api: Api, name: str) -> None:
    """A claim with a volume that is never mounted: the nodes are fake."""
    volume = f"{api.namespace}-{name}"
    common: Object = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    spec: Object = common | {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"}}
    spec |= {"claimRef": {"namespace": api.namespace, "name": name}}
    api.request("POST", "/api/v1/persistentvolumes", json={"metadata": {"name": volume}, "spec": spec})
    spec = common | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume}
    claims = f"/api/v1/namespaces/{api.namespace}/persistentvolumeclaims"
    api.request("POST", claims, json={"metadata": {"name": name}, "spec": spec})
