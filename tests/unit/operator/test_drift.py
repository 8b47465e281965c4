"""What counts as a difference between what is wanted and what is live, and what does not."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_common.labels import APPLIED_HASH_ANNOTATION, REVISION_LABEL
from moorage_operator.desired import desired
from moorage_operator.desired.drift import drifted, with_hash
from tests.golden.cases import cases
from tests.unit.operator.support import CONFIG, model, thorough

keys = st.text("abcdefgh", min_size=1, max_size=3)
leaves = st.one_of(st.integers(), st.booleans(), st.text(max_size=5))
plain = st.recursive(
    leaves, lambda inner: st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(keys, plain, max_size=5)
manifests = st.sampled_from([manifest for case in cases() for manifest in case.manifests()])
Path = tuple[Any, ...]


def paths_of_leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Each way to a value that is neither object nor list."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path
        return
    for key, inner in items:
        yield from paths_of_leaves(inner, (*path, key))


def changed(value: Any, path: Path, *, remove: bool) -> Any:
    """A copy of `value` in which the leaf at `path` is another, or is not there."""
    result = copy.deepcopy(value)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        old = parent[path[-1]]
        parent[path[-1]] = f"9{old}" if isinstance(old, str) else old + 1
    return result


def sorted_json(value: Any) -> str:
    """The content of `value`; Python's own comparison takes True for 1."""
    return json.dumps(value, sort_keys=True)


def with_strangers(value: Any) -> Any:
    """A copy of `value` as an API server gives it back: others' fields in objects, others' items in keyed lists."""
    if isinstance(value, dict):
        return {"defaulted": 1, **{key: with_strangers(inner) for key, inner in value.items()}}
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return [{"name": "of others"}, *(with_strangers(item) for item in reversed(value))]
    return [with_strangers(item) for item in value] if isinstance(value, list) else value


@thorough
@given(objects)
def test_nothing_drifts_from_itself(value: dict[str, Any]) -> None:
    assert not drifted(value, copy.deepcopy(value))


@thorough
@given(objects, objects)
def test_what_others_add_is_no_drift(value: dict[str, Any], others: dict[str, Any]) -> None:
    assert not drifted(value, {**others, **value})


@thorough
@given(manifests)
def test_a_manifest_does_not_drift_from_what_the_api_server_makes_of_it(manifest: dict[str, Any]) -> None:
    assert not drifted(manifest, with_strangers(manifest))


@thorough
@given(manifests, st.data())
def test_any_single_changed_leaf_is_seen(manifest: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(paths_of_leaves(manifest))))
    remove = data.draw(st.booleans())
    assert drifted(manifest, changed(with_hash(manifest), path, remove=remove))


@thorough
@given(objects.filter(lambda value: any(True for _ in paths_of_leaves(value))), st.data())
def test_any_single_changed_leaf_of_any_object_is_seen(value: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(paths_of_leaves(value))))
    assert drifted(value, changed(value, path, remove=False))


@pytest.mark.parametrize("key", ["name", "uid", "containerPort", "port", "mountPath", "type"])
def test_items_of_a_list_are_told_apart_by_their_key_and_not_by_their_place(key: str) -> None:
    wanted = [{key: "a", "value": 1}, {key: "b", "value": 2}]
    assert not drifted(wanted, [{key: "x", "value": 9}, {key: "b", "value": 2}, {key: "a", "value": 1}])
    assert drifted(wanted, [{key: "a", "value": 2}, {key: "b", "value": 1}])
    assert drifted(wanted, [{key: "a", "value": 1}])


def test_items_without_a_key_are_compared_in_their_order_and_number() -> None:
    assert not drifted(["NET_RAW", "ALL"], ["NET_RAW", "ALL"])
    assert drifted(["NET_RAW", "ALL"], ["ALL", "NET_RAW"])
    assert drifted(["ALL"], ["ALL", "NET_RAW"])
    assert drifted([{"name": "a"}, {"other": 1}], [{"other": 1}, {"name": "a"}])


def test_an_empty_object_that_the_api_server_has_dropped_is_no_drift() -> None:
    assert not drifted({"emptyDir": {}}, {})
    assert not drifted({"emptyDir": {}}, {"emptyDir": {"medium": "Memory"}})
    assert drifted({"emptyDir": {}}, {"emptyDir": "text"})
    assert drifted({"limits": {"memory": "1Gi"}}, {})


def test_a_value_of_another_kind_is_drift() -> None:
    assert drifted({"a": {"b": 1}}, {"a": [1]})
    assert drifted({"a": [1]}, {"a": {"b": 1}})
    assert drifted({"a": 0}, {})
    assert drifted({"a": False}, {"a": None})


def test_quantities_are_compared_as_numbers_below_resources_only() -> None:
    wanted = {"resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}}
    assert not drifted(wanted, {"resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}})
    assert drifted(wanted, {"resources": {"limits": {"cpu": "1001m", "memory": "1Gi"}}})
    assert drifted({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "1000m"}]})
    assert drifted({"labels": {"cpu": "1"}}, {"labels": {"cpu": "1000m"}})


def test_resources_as_the_api_server_writes_them_do_not_drift() -> None:
    deployment = desired(model(resources={"cpu": "0.5", "memory": "0.5Gi"}), CONFIG)[1]
    live = copy.deepcopy(deployment)
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
    assert not drifted(deployment, live)
    container["resources"]["limits"]["memory"] = "513Mi"
    assert drifted(deployment, live)


def test_the_hash_tells_of_a_field_that_is_no_longer_wanted() -> None:
    before = with_hash(desired(model(contextLength=512), CONFIG)[1])
    now = with_hash(desired(model(), CONFIG)[1])
    without_hash = copy.deepcopy(now)
    del without_hash["metadata"]["annotations"]
    # The revision on the pods would tell as well; a field outside of the pod template has the hash alone.
    del without_hash["spec"]["template"]["metadata"]["labels"][REVISION_LABEL]
    assert not drifted(without_hash, before)
    assert drifted(now, before)


@thorough
@given(objects, objects)
def test_the_hash_is_of_the_content_and_not_of_the_order(first: dict[str, Any], second: dict[str, Any]) -> None:
    def hashed(spec: dict[str, Any]) -> str:
        found = with_hash({"metadata": {"name": "x"}, "spec": spec})
        return str(found["metadata"]["annotations"][APPLIED_HASH_ANNOTATION])

    assert hashed(first) == hashed(dict(reversed(first.items())))
    assert (hashed(first) == hashed(second)) == (sorted_json(first) == sorted_json(second))


def test_the_hash_keeps_other_annotations_and_leaves_the_manifest_as_it_was() -> None:
    manifest = {"metadata": {"name": "x", "annotations": {"note": "kept"}}, "spec": {}}
    before = copy.deepcopy(manifest)
    hashed = with_hash(manifest)
    assert manifest == before
    assert hashed["metadata"]["annotations"]["note"] == "kept"
    assert set(hashed["metadata"]["annotations"]) == {"note", APPLIED_HASH_ANNOTATION}
