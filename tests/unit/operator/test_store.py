"""What the store keeps of the children, whatever the order in which news of them comes."""

from typing import Any

import pytest

from moorage_common.facts import Health, Phase
from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.child import MOST_KEPT, Child
from moorage_operator.cluster.cache.store import Store, key_of
from moorage_operator.desired.drift import drifted
from moorage_operator.status.observe import deployment_state
from tests.unit.operator.support import MODEL_UID, NAMESPACE, live_deployment, live_pod

TINY = Key(NAMESPACE, "tiny")
ALL = 10**6
READY = Health(Phase.READY)


def pod(name: str, **fields: Any) -> dict[str, Any]:
    """A pod that a ReplicaSet made."""
    return live_pod(name, **fields)


def names(store: Store, key: Key = TINY) -> list[str]:
    """The pods of a model."""
    return [state.name for state in store.pods(key)]


def replicas(store: Store) -> int | None:
    """What the Deployment that the store knows has in its spec."""
    child = store.child(TINY, "Deployment")
    found: int | None = child.body["spec"]["replicas"] if child else None
    return found


def test_a_child_belongs_to_the_model_of_its_name_and_a_pod_to_that_of_its_label() -> None:
    unlabelled = live_deployment()
    del unlabelled["metadata"]["labels"]
    assert key_of("Deployment", live_deployment()) == key_of("Deployment", unlabelled) == TINY
    stranger = pod("a")
    assert key_of("Pod", stranger) == TINY
    del stranger["metadata"]["labels"]
    assert key_of("Pod", stranger) is None
    store = Store()
    assert store.put("Pod", stranger) is None
    assert store.models() == []


def test_fault_13_a_child_whose_labels_were_changed_is_still_the_models() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=1))
    relabelled = live_deployment(version=2, replicas=7)
    relabelled["metadata"]["labels"] = {"moorage.dev/model": "another"}
    assert store.put("Deployment", relabelled) == TINY
    assert replicas(store) == 7


@pytest.mark.parametrize("labels", [{}, {"moorage.dev/model": "another"}])
def test_fault_13_a_pod_whose_label_was_changed_is_no_more_the_models(labels: dict[str, str]) -> None:
    store = Store()
    store.put("Pod", pod("a", version=1))
    relabelled = pod("a", version=2)
    relabelled["metadata"]["labels"] = labels
    assert store.put("Pod", relabelled) == TINY
    assert names(store) == []


def test_fault_13_a_pod_that_its_replica_set_has_let_go_is_no_more_the_models() -> None:
    store = Store()
    store.put("Pod", pod("a", version=1))
    released = pod("a", version=2)
    del released["metadata"]["ownerReferences"]
    assert store.put("Pod", released) == TINY
    assert names(store) == []


def test_bad_input_of_a_foreign_object_of_a_childs_name_only_the_owner_is_kept() -> None:
    store, foreign = Store(), live_deployment(owner_uid=None)
    foreign["metadata"]["annotations"] = {"large": "x" * 10**6}
    store.put("Deployment", foreign)
    assert store.child(TINY, "Deployment") == Child("uid-of-deployment", 1, None, None, state=deployment_state(foreign))
    of_another = live_deployment(version=2)
    of_another["metadata"]["ownerReferences"][0]["name"] = "another"
    store.put("Deployment", of_another)
    assert (child := store.child(TINY, "Deployment"))
    assert (child.owner_uid, child.body) == (MODEL_UID, {})


def test_bad_input_a_child_that_is_too_large_is_not_kept_and_its_changes_are_noticed() -> None:
    store, large = Store(), live_deployment()
    large["metadata"]["annotations"] = {"large": "x" * MOST_KEPT}
    store.put("Deployment", large)
    assert (child := store.child(TINY, "Deployment"))
    assert child.body == {}
    assert drifted({"spec": {"replicas": 1}}, child.body)
    large["metadata"]["resourceVersion"] = "2"
    assert store.put("Deployment", large) is None
    large["metadata"] |= {"resourceVersion": "3", "annotations": {"large": "y" * MOST_KEPT}}
    assert store.put("Deployment", large) == TINY


def test_news_of_a_child_names_its_model() -> None:
    store = Store()
    assert store.put("Deployment", live_deployment(version=1)) == TINY
    assert store.put("Deployment", live_deployment(version=2, replicas=2)) == TINY
    assert store.models() == [TINY]


def test_what_nothing_depends_on_is_no_news_but_its_version_counts() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=1))
    assert store.put("Deployment", live_deployment(version=5, status={"collisionCount": 1})) is None
    assert store.put("Deployment", live_deployment(version=4, replicas=2)) is None
    assert store.put("Deployment", live_deployment(version=6, status={"replicas": 1})) == TINY


@pytest.mark.parametrize("version", [4, 5])
def test_a_version_that_is_not_newer_is_no_news(version: int) -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=5, replicas=3))
    assert store.put("Deployment", live_deployment(version=version, replicas=1)) is None
    assert replicas(store) == 3


def test_versions_are_compared_as_numbers() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=9, replicas=1))
    assert store.put("Deployment", live_deployment(version=10, replicas=2)) == TINY
    assert replicas(store) == 2


def test_what_is_kept_of_a_child() -> None:
    store = Store()
    live = live_deployment(status={"observedGeneration": 1})
    live["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    store.put("Deployment", live)
    child = store.child(TINY, "Deployment")
    assert child is not None
    assert (child.uid, child.owner_uid) == ("uid-of-deployment", MODEL_UID)
    assert child.state is not None
    assert child.state.observed_generation == 1
    assert set(child.body) == {"metadata", "spec"}
    assert "managedFields" not in child.body["metadata"]
    assert store.child(TINY, "Service") is None


def test_a_child_of_nobody_has_no_owner() -> None:
    store = Store()
    live = live_deployment(owner_uid=None)
    live["metadata"]["ownerReferences"] = [{"kind": "Application", "name": "x", "uid": "other", "controller": False}]
    store.put("Deployment", live)
    child = store.child(TINY, "Deployment")
    assert child is not None
    assert child.owner_uid is None


def test_an_object_that_bears_our_label_but_not_the_models_name_is_no_child_of_it() -> None:
    other = live_deployment("other")
    other["metadata"]["labels"] = live_deployment("tiny")["metadata"]["labels"]
    store = Store()
    assert store.put("Deployment", other) == TINY._replace(name="other")
    assert store.child(TINY, "Deployment") is None


@pytest.mark.parametrize("controller", ["Job", "StatefulSet"])
def test_a_pod_that_no_replica_set_made_is_ignored(controller: str) -> None:
    store = Store()
    assert store.put("Pod", pod("a", controller=controller)) is None
    bare = pod("b")
    del bare["metadata"]["ownerReferences"]
    assert store.put("Pod", bare) is None
    assert names(store) == []


def test_pods_come_oldest_first() -> None:
    store = Store()
    store.put("Pod", pod("young", creationTimestamp="2026-01-03T00:00:00Z"))
    store.put("Pod", pod("b"))
    store.put("Pod", pod("a"))
    assert names(store) == ["a", "b", "young"]


def test_a_pod_whose_state_is_as_before_is_no_news() -> None:
    store = Store()
    assert store.put("Pod", pod("a", version=1)) == TINY
    assert store.put("Pod", pod("a", version=2, annotations={"kubelet": "was here"})) is None
    assert store.put("Pod", pod("a", version=3, ready=True)) == TINY
    assert store.put("Pod", pod("a", version=2, ready=False)) is None
    assert store.pods(TINY)[0].ready


def test_a_removed_object_is_gone_and_its_model_is_told() -> None:
    store = Store()
    store.put("Pod", pod("a"))
    store.put("Deployment", live_deployment())
    assert store.remove("Pod", pod("a", version=2)) == TINY
    assert store.remove("Deployment", live_deployment(version=2)) == TINY
    assert names(store) == []
    assert store.child(TINY, "Deployment") is None


def test_late_news_of_a_removed_object_does_not_bring_it_back() -> None:
    store = Store()
    store.put("Pod", pod("a", version=1))
    store.put("Deployment", live_deployment(version=1))
    store.remove("Pod", pod("a", version=5))
    store.remove("Deployment", live_deployment(version=5))
    assert store.put("Pod", pod("a", version=4, ready=True)) is None
    assert store.put("Deployment", live_deployment(version=4)) is None
    assert names(store) == []
    assert store.child(TINY, "Deployment") is None


def test_an_object_that_lost_our_label_and_got_it_back_is_known_again() -> None:
    # A watch by label says DELETED when the label goes, with the version of that change; the object is still there.
    store = Store()
    store.put("Deployment", live_deployment(version=1))
    store.remove("Deployment", live_deployment(version=5))
    assert store.put("Deployment", live_deployment(version=5, replicas=2)) == TINY
    assert replicas(store) == 2


def test_the_removal_of_an_earlier_object_of_that_name_does_not_touch_the_new_one() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=7, uid="new"))
    store.remove("Deployment", live_deployment(version=6, uid="old"))
    child = store.child(TINY, "Deployment")
    assert child is not None
    assert child.uid == "new"


def test_the_removal_of_something_unknown_concerns_nobody() -> None:
    assert Store().remove("Pod", pod("a")) is None


def test_a_list_drops_what_it_does_not_have() -> None:
    store = Store()
    for name in ("a", "b"):
        store.put("Pod", pod(name))
    store.put("Deployment", live_deployment())
    assert store.retain("Pod", {"uid-of-b"}, None, ALL) == {TINY}
    assert names(store) == ["b"]
    assert store.child(TINY, "Deployment") is not None
    assert store.retain("Deployment", set(), None, ALL) == {TINY}
    assert store.child(TINY, "Deployment") is None


def test_late_news_of_what_a_list_did_not_have_does_not_bring_it_back() -> None:
    store = Store()
    store.put("Pod", pod("a", version=1))
    store.put("Deployment", live_deployment(version=1))
    store.retain("Pod", set(), None, 10)
    store.retain("Deployment", set(), None, 10)
    assert store.put("Pod", pod("a", version=9)) is None
    assert store.put("Deployment", live_deployment(version=1)) is None
    assert names(store) == []
    assert store.child(TINY, "Deployment") is None


def test_fault_13_a_child_that_no_list_has_for_its_label_is_kept_when_it_is_read() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=1))
    store.retain("Deployment", set(), None, 10)
    assert store.put("Deployment", live_deployment(version=2)) == TINY


def test_a_list_that_has_everything_concerns_nobody() -> None:
    store = Store()
    store.put("Pod", pod("a"))
    store.put("Deployment", live_deployment())
    assert store.retain("Pod", {"uid-of-a"}, None, ALL) == set()
    assert store.retain("Deployment", {"uid-of-deployment"}, None, ALL) == set()


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_the_list_of_a_namespace_drops_nothing_of_others(kind: str) -> None:
    store = Store()
    store.put("Deployment", live_deployment())
    store.put("Pod", pod("a"))
    assert store.retain(kind, set(), "team-b", ALL) == set()
    assert names(store) == ["a"]
    assert store.child(TINY, "Deployment") is not None
    assert store.retain(kind, set(), NAMESPACE, ALL) == {TINY}


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_what_was_made_after_a_list_stays(kind: str) -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=11))
    store.put("Pod", pod("a", version=11))
    assert store.retain(kind, set(), None, 10) == set()
    assert store.retain(kind, set(), None, 11) == {TINY}


def test_facts_are_forgotten_with_their_pod() -> None:
    store = Store()
    store.put("Pod", pod("a"))
    store.reports(TINY).put_facts("uid-of-a", READY)
    assert store.reports(TINY).facts == {"uid-of-a": READY}
    store.remove("Pod", pod("a", version=2))
    assert store.reports(TINY).facts == {}


def test_facts_are_forgotten_with_a_pod_that_a_list_does_not_have() -> None:
    store = Store()
    store.put("Pod", pod("a"))
    store.reports(TINY).put_facts("uid-of-a", None)
    store.retain("Pod", set(), None, ALL)
    assert store.reports(TINY).facts == {}


def test_facts_of_a_pod_that_is_gone_are_not_kept() -> None:
    store = Store()
    store.reports(TINY).put_facts("uid-of-a", READY)
    assert store.models() == []
    store.put("Pod", pod("b"))
    store.reports(TINY).put_facts("uid-of-a", READY)
    assert store.reports(TINY).facts == {}


def test_facts_of_one_pod_can_be_dropped() -> None:
    store = Store()
    for name in ("a", "b"):
        store.put("Pod", pod(name))
        store.reports(TINY).put_facts(f"uid-of-{name}", READY)
    store.reports(TINY).drop_facts("uid-of-a")
    store.reports(Key(NAMESPACE, "unknown")).drop_facts("uid-of-b")
    assert store.reports(TINY).facts == {"uid-of-b": READY}


def test_the_echo_of_our_own_last_write_is_no_news() -> None:
    store = Store()
    assert store.note_model(TINY, MODEL_UID, "5")
    store.note_written(TINY, "6")
    assert not store.note_model(TINY, MODEL_UID, "6")
    assert store.note_model(TINY, MODEL_UID, "7")


def test_a_forgotten_model_leaves_nothing() -> None:
    store = Store()
    store.note_written(TINY, "6")
    store.put("Pod", pod("a", version=3))
    store.put("Deployment", live_deployment(version=3))
    store.forget(TINY)
    store.forget(TINY)
    assert store.models() == []
    assert (store.pods(TINY), store.child(TINY, "Deployment"), store.reports(TINY).facts) == ((), None, {})
    assert store.note_model(TINY, MODEL_UID, "6")


def test_a_forgotten_child_is_taken_in_again_whatever_its_version() -> None:
    store = Store()
    store.put("Deployment", live_deployment(version=5))
    store.forget_child(TINY, "Deployment")
    assert store.child(TINY, "Deployment") is None
    assert store.put("Deployment", live_deployment(version=5)) == TINY


def test_one_pod_is_found_by_its_uid() -> None:
    store = Store()
    store.put("Pod", pod("a"))
    found = store.pod(TINY, "uid-of-a")
    assert found is not None
    assert found.name == "a"
    assert store.pod(TINY, "uid-of-b") is None
    assert store.pod(Key(NAMESPACE, "unknown"), "uid-of-a") is None


def test_a_late_deletion_of_an_old_model_forgets_nothing_of_the_new_one() -> None:
    store = Store()
    store.note_model(TINY, "old", "1")
    store.note_model(TINY, "new", "2")
    store.note_deleted(TINY, "old")
    assert store.knows(TINY)
    store.put("Deployment", live_deployment(version=3))
    store.retain_models({"another"}, NAMESPACE, 1)
    assert store._models[TINY].uid == "new", "made after that list"
    store.retain_models({"another"}, NAMESPACE, 3)
    assert store.knows(TINY), "its Deployment is there until the garbage collector has noticed"
    store.remove("Deployment", live_deployment(version=4))
    assert store.models() == []
