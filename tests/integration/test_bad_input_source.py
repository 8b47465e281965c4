"""Bad addresses of models, by the rows of reliability.md, and what changes of an address do."""

import re

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, Object, is_ready, reason
from tests.support.models import model
from tests.support.operator import OperatorProcess
from tests.support.policies import chart_part, until_refused, warning_of
from tests.support.refusals import assert_no_such_field, assert_says, refusal


@pytest.mark.parametrize(
    "uri", ["", "oci://", "oci://a b", "oci://a\nb", "oci://a\x00b", "pvc://claim/a b", "oci://Upper/x", "x" * 1025]
)
def test_bad_input_09_model_address(api: Api, uri: str) -> None:
    text = refusal(api, {"source": {"uri": uri}})
    assert_says(text, "spec.source.uri")
    assert re.search(r"at least 7 chars|must be|longer than 1024|may not be more than 1024", text), text


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/passwd", "/abs/path", "hostpath:///var", "FILE:///x", "git://host/x", "OCI://a/b", "HF://a/b@c"],
)
def test_bad_input_10_scheme(api: Api, uri: str) -> None:
    assert_says(refusal(api, {"source": {"uri": uri}}), "spec.source.uri", uri, "oci://", "pvc://")


@pytest.mark.parametrize("path", ["../x", "a/../b", "a/%2e%2e/b", "a//b", "..", "a\\b", "./a", "a/..gguf/../x"])
def test_bad_input_11_pvc_path(api: Api, path: str) -> None:
    assert_says(refusal(api, {"source": {"uri": f"pvc://claim/{path}"}}), "spec.source.uri", "pvc://CLAIM/PATH", "'..'")


ADDRESSES = (
    *("169.254.169.254/latest", "10.0.0.1/x", "127.0.0.1/x", "[::1]/x", "metadata.google.internal/x"),
    *("user@host/x", "user:pw@host/x", "host\\@evil/x", "2852039166/x", "0xa9fea9fe/x", "localhost/x"),
)


@pytest.mark.parametrize("address", [*ADDRESSES, "example.org/x"])
@pytest.mark.parametrize("scheme", ["http", "ftp", "gs"])
def test_bad_input_12_other_schemes(api: Api, scheme: str, address: str) -> None:
    uri = f"{scheme}://{address}"
    text = refusal(api, {"source": {"uri": uri}})
    # The server quotes a value as JSON does.
    assert_says(text, "spec.source.uri", uri.replace("\\", "\\\\"), "the scheme must be oci://", "pvc://models/")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("ending", ["", ".gguf", "/"])
def test_bad_input_12_nothing_is_fetched_from_numbers_users_or_metadata(api: Api, address: str, ending: str) -> None:
    text = refusal(api, {"source": {"uri": f"https://{address}{ending}", "files": ["x.gguf"]}})
    assert_says(text, "spec.source.uri")
    assert "must be that of a .gguf or .safetensors file" in text or "cloud's metadata" in text


@pytest.mark.parametrize(
    "address",
    [
        *("files.example/a.bin", "files.example/a", "files.example", "files.example/a.gguf?token=x"),
        *("files.example/a.gguf#x", "files.example/../a.gguf", "files.example/a%2e/b.gguf", "files.example//a.gguf"),
        *(
            "files.example/$(HF_TOKEN).gguf",
            "files.example/a b.gguf",
            "files.example/.hidden.gguf",
            "FILES.example/a.gguf",
        ),
    ],
)
def test_bad_input_12_a_web_address_is_plain(api: Api, address: str) -> None:
    uri = f"https://{address}"
    assert_says(
        refusal(api, {"source": {"uri": uri}}), uri, "must be that of a .gguf or .safetensors file", "for example"
    )


@pytest.mark.parametrize(
    "address", ["Qwen/Qwen2", "Qwen@main", "Qwen/Qwen2@", "a/b/c@main", "a/..@main", "a/b@x/y", "a/b@$(X)", "../b@main"]
)
def test_bad_input_13_a_repository_is_named_with_its_revision(api: Api, address: str) -> None:
    text = refusal(api, {"source": {"uri": f"hf://{address}"}})
    assert_says(text, "spec.source.uri", f"hf://{address}", "hf://OWNER/NAME@REVISION", "40 digits")


@pytest.mark.parametrize(
    "address", ["Models/x", "ab/", "models/../x", "models//x", "u@models/x", "models/$(X)", "models/%2e"]
)
def test_bad_input_12_a_bucket_is_plain(api: Api, address: str) -> None:
    text = refusal(api, {"source": {"uri": f"s3://{address}"}})
    assert_says(text, "spec.source.uri", f"s3://{address}", "s3://BUCKET/PREFIX")


HF, WEB, S3 = "hf://Qwen/Qwen2-7B@" + "a" * 40, "https://files.example:8443/a/q4.gguf", "s3://models/qwen2/7b"


@pytest.mark.parametrize(
    "source",
    [
        {"uri": HF, "secretName": "hf-token", "size": "20Gi", "files": ["q4_k_m.gguf", "1_Pooling/config.json"]},
        {"uri": "hf://a/b@v1.0", "sha256": "0" * 64},
        {"uri": WEB, "sha256": "0" * 64},
        {"uri": "https://files.example/", "files": ["config.json", "tokenizer.model", "model.safetensors"]},
        {"uri": S3, "secretName": "keys", "size": 1073741824},
        {"uri": "s3://models"},
    ],
    ids=str,
)
def test_what_is_fetched_is_taken_as_it_is_written(api: Api, source: Object) -> None:
    assert api.create(model("fetched", source=source), dry_run=True)["spec"]["source"] == source


@pytest.mark.parametrize(
    ("source", "field", "words"),
    [
        ({"uri": WEB, "secretName": "keys"}, "secretName", "only hf:// and s3:// use a Secret"),
        ({"uri": "pvc://models/x.gguf", "secretName": "keys"}, "secretName", "remove secretName"),
        ({"uri": HF, "secretName": "Other/keys"}, "secretName", "in the model's own namespace"),
        ({"uri": HF, "secretName": "$(X)"}, "secretName", "name of a Secret"),
        ({"uri": "pvc://models/x.gguf", "sha256": "0" * 64}, "sha256", "remove sha256"),
        ({"uri": WEB, "sha256": "0" * 63 + "G"}, "sha256", "64 hexadecimal digits"),
        ({"uri": "oci://r.example/x", "size": "1Gi"}, "size", "remove size"),
        ({"uri": HF, "size": "-1"}, "size", "positive Kubernetes quantity"),
        ({"uri": WEB, "files": ["a.gguf"]}, "files", "ends with /"),
        ({"uri": "oci://r.example/x", "files": ["a.gguf"]}, "files", "remove files"),
        ({"uri": "https://files.example/"}, "files", "name them in files"),
        ({"uri": "https://files.example/", "files": []}, "files", "name them in files"),
        *(
            ({"uri": HF, "files": [name]}, "files[0]", "must be the name of a file that is fetched")
            for name in (
                "../x.json",
                "/x.json",
                "x.bin",
                "x.py",
                "a/b/c/d/e.json",
                ".x.json",
                "x..json/../y.json",
                "$(X).json",
            )
        ),
    ],
)
def test_bad_input_15_21_what_belongs_to_a_source(api: Api, source: Object, field: str, words: str) -> None:
    assert_says(refusal(api, {"source": source}), f"spec.source.{field}", words)


def test_bad_input_21_a_secret_of_another_namespace_cannot_be_named(api: Api) -> None:
    assert_no_such_field(api, "other", source={"uri": HF, "secretNamespace": "kube-system"})
    text = refusal(api, {"source": {"uri": HF, "secretName": {"name": "x", "namespace": "y"}}})
    assert_says(text, "spec.source.secretName")


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
        ("hf://Qwen/Qwen2-7B@main", True),
        ("hf://Qwen/Qwen2-7B@" + "a" * 39, True),
        (HF, False),
        (WEB, True),
        (S3, False),
    ],
)
def test_bad_input_13_a_tag_is_taken_with_a_warning(api: Api, policies: None, uri: str, warned: bool) -> None:
    wanted = model("pinned", source={"uri": uri})
    warning = warning_of(api, wanted) or ""
    pinned_by = {"oci": "digest", "hf": "commit", "https": "sha256"}.get(uri.partition(":")[0], "")
    assert (uri in warning and pinned_by in warning) is warned, warning


def test_bad_input_13_a_file_with_its_sum_is_pinned(api: Api, policies: None) -> None:
    wanted = model("pinned", source={"uri": WEB, "sha256": "0" * 64})
    assert warning_of(api, wanted) is None


def test_bad_input_13_a_change_of_something_else_does_not_warn_again(api: Api, policies: None) -> None:
    api.create(model("tagged", source={"uri": "oci://registry.example/models/qwen2:7b"}))
    headers = {"Content-Type": "application/merge-patch+json"}
    path = api.path("InferenceModel", "tagged")
    same = api.answer("PATCH", path, json={"spec": {"priority": 7}}, headers=headers)
    source = {"uri": "oci://other.example/x"}
    other = api.answer("PATCH", path, json={"spec": {"source": source}}, headers=headers)
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
        for uri in ("hf://Qwen/Qwen2-7B@main", WEB):
            assert_says(refusal(api, {"source": {"uri": uri}}), "spec.source.uri", uri)
        api.create(model("commit", source={"uri": HF}))


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
