"""An export: all that somebody wants of a model, and nothing that the cluster has added."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from moorage_common.manifests import clean, documents

LIVE: dict[str, Any] = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "InferenceModel",
    "metadata": {
        "name": "tiny",
        "namespace": "team-a",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "managedFields": [{}],
        "finalizers": ["x"],
        "ownerReferences": [{}],
        "labels": {"team": "a", "moorage.dev/idempotency-key": "h"},
        "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "moorage.dev/restarted-at": "2026-01-01T00:00:00Z",
            "moorage.dev/idempotency-body": "h",
            "note": "theirs",
        },
    },
    "spec": {"framework": "llamacpp"},
    "status": {"phase": "Running"},
}


def test_only_what_a_person_has_written_is_left() -> None:
    assert clean(LIVE) == {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": "tiny", "namespace": "team-a", "labels": {"team": "a"}, "annotations": {"note": "theirs"}},
        "spec": {"framework": "llamacpp"},
    }
    bare = {"metadata": {"name": "a", "namespace": "b", "labels": {}}, "spec": {}}
    assert clean(bare)["metadata"] == {"name": "a", "namespace": "b"}
    assert clean(clean(LIVE)) == clean(LIVE)


def test_the_default_beside_scaling_is_left_out_as_it_has_to_be_when_one_writes_it() -> None:
    scaled = {**LIVE, "spec": {**LIVE["spec"], "replicas": 1, "scaling": {"maxReplicas": 3}}}
    assert clean(scaled)["spec"] == {**clean(LIVE)["spec"], "scaling": {"maxReplicas": 3}}
    assert clean({**LIVE, "spec": {"replicas": 1}})["spec"] == {"replicas": 1}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_stands_in_a_spec_comes_back_from_yaml_as_it_was(value: Any) -> None:
    model = {**clean(LIVE), "spec": {"value": value}}
    assert list(yaml.safe_load_all(documents([model, model]))) == [model, model]
