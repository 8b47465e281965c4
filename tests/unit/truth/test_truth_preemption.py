"""Who preempted whom: held against the pods and Events that the checker has seen."""

from typing import Any

import pytest

from tests.truth.objects import Object, name_of
from tests.unit.truth.scene import AT, WAITS, Scene, says, says_it_waits


class Preempted:
    """A model of low priority whose pod was just preempted by one of high priority; its status is true."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.victim = self.scene.serving("low")
        (self.pod,) = self.scene.found["Pod"]
        self.scene.see()
        self.preemptor = self.scene.model("high", priority=8)
        self.winner = self.scene.pod(self.preemptor, node="gpu-0", ready=True)
        says(self.preemptor)
        self.scene.preempt(self.pod, self.winner)
        self.next = self.scene.pod(self.victim, words="0/1 nodes: 1 Insufficient nvidia.com/gpu.", second=11)
        self.tell()

    def tell(self, **verdicts: tuple[str, str]) -> None:
        """The true status of the victim."""
        lost = {"Progressing": ("False", "Complete"), "Preempted": ("True", "Preempted")}
        says_it_waits(self.victim, 1, 1, **{**WAITS, **lost, **verdicts})
        entry = self.entry(self.pod, 10)
        self.victim["status"] |= {
            "preemptedBy": name_of(self.preemptor),
            "preemption": {"count": 1, "last": entry, "history": [entry]},
        }

    def entry(self, pod: Object, second: int) -> Object:
        """The entry of a preemption in a status."""
        time = AT.format(second)
        return {"pod": pod["metadata"]["name"], "time": time, "node": "gpu-0", "by": name_of(self.preemptor)}

    def back(self) -> None:
        """The victim's next pod is ready, and its status is true."""
        self.next["spec"]["nodeName"] = "gpu-0"
        self.next["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
        says(self.victim, Preempted=("False", "Recovered"))


@pytest.fixture
def preempted() -> Preempted:
    return Preempted()


def test_a_true_status_passes(preempted: Preempted) -> None:
    assert [str(lie) for lie in preempted.scene.lies()] == []
    preempted.back()
    assert [str(lie) for lie in preempted.scene.lies()] == []


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("preemptedBy", "team-b/somebody"),
        ("preemptedBy", None),
        ("preemption.count", 2),
        ("preemption.count", None),
        ("preemption.last.by", "pod uid-9"),
        ("preemption.last.node", "gpu-7"),
        ("preemption.last.pod", "low-rs1-0"),
        ("preemption.last.time", "2026-01-02T03:04:13Z"),
        ("preemption.last.time", "yesterday"),
        ("preemption.history", []),
        ("preemption.history.0.by", ""),
        ("preemption.history.0.time", "2026-01-02T03:04:07Z"),
    ],
)
def test_a_false_account_is_found(preempted: Preempted, path: str, wrong: Any) -> None:
    section: Any = preempted.victim["status"]
    entry = dict(section["preemption"]["last"])
    section["preemption"]["history"] = [dict(entry)]
    section["preemption"]["last"] = entry
    *way, last = path.split(".")
    for step in way:
        section = section[int(step)] if step.isdigit() else section[step]
    section[last] = wrong
    assert preempted.scene.false_fields() == {".".join(path.split(".")[:2])}


def test_a_preemptor_that_is_gone_keeps_its_name(preempted: Preempted) -> None:
    preempted.scene.remove(preempted.winner)
    preempted.scene.remove(preempted.preemptor)
    assert preempted.scene.lies() == []


def test_a_preemptor_that_is_no_model_is_named_by_its_pod() -> None:
    scene = Scene()
    victim = scene.serving("low")
    stranger = scene.add("Pod", "stranger", spec={}, status={})
    scene.preempt(scene.found["Pod"][0], stranger)
    scene.pod(victim)
    says(victim, "Starting", None, 0, Preempted=("True", "Preempted"))
    scene.see()
    by = f"pod {stranger['metadata']['uid']}"
    victim["status"] |= {"preemptedBy": by}
    assert "preemptedBy" not in scene.false_fields()
    victim["status"] |= {"preemptedBy": "team-a/stranger"}
    assert "preemptedBy" in scene.false_fields()


def test_only_a_preempted_model_says_so(preempted: Preempted) -> None:
    preempted.tell(Preempted=("False", "Never"))
    assert "conditions.Preempted" in preempted.scene.false_fields()
    says(preempted.preemptor, Preempted=("False", "Recovered"))
    assert "conditions.Preempted" in preempted.scene.false_fields()


def test_it_lasts_until_all_are_ready_again_and_no_longer(preempted: Preempted) -> None:
    preempted.tell(Preempted=("False", "Recovered"))
    assert "conditions.Preempted" in preempted.scene.false_fields()
    preempted.back()
    says(preempted.victim, Preempted=("True", "Preempted"))
    assert "conditions.Preempted" in preempted.scene.false_fields()


def test_a_pod_that_ends_otherwise_is_no_second_preemption(preempted: Preempted) -> None:
    preempted.back()
    assert preempted.scene.lies() == []
    preempted.scene.remove(preempted.next)
    preempted.scene.pod(preempted.victim)
    says(preempted.victim, "Starting", None, 0, Preempted=("True", "Preempted"))
    assert "conditions.Preempted" in preempted.scene.false_fields()
    says(preempted.victim, "Starting", None, 0, Preempted=("False", "Recovered"))
    assert "conditions.Preempted" not in preempted.scene.false_fields()


def test_a_moment_that_the_status_may_have_missed_is_told_either_way(preempted: Preempted) -> None:
    preempted.next["spec"]["nodeName"] = "gpu-0"
    preempted.next["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    preempted.scene.see()
    preempted.next["status"] = {"conditions": [{"type": "Ready", "status": "False"}]}
    for verdict in (("True", "Preempted"), ("False", "Recovered")):
        preempted.tell(Preempted=verdict)
        assert "conditions.Preempted" not in preempted.scene.false_fields()


def test_the_history_is_the_last_ten_newest_first() -> None:
    preempted = Preempted()
    entries = [preempted.entry(preempted.pod, 10)]
    for second in range(12, 48, 3):
        preempted.back()
        lost = preempted.next
        preempted.scene.see()
        preempted.scene.preempt(lost, preempted.winner, second)
        entries.insert(0, preempted.entry(lost, second))
        preempted.next = preempted.scene.pod(
            preempted.victim, words="0/1 nodes: 1 Insufficient nvidia.com/gpu.", second=second
        )
    preempted.tell()
    preempted.victim["status"]["preemption"] = {"count": 13, "last": entries[0], "history": entries[:10]}
    assert [str(lie) for lie in preempted.scene.lies()] == []
    for wrong in (entries[:9], entries[:10][::-1], entries[1:11], [*entries[:9], entries[0]], entries[:11]):
        preempted.victim["status"]["preemption"]["history"] = wrong
        assert preempted.scene.false_fields() == {"preemption.history"}


def test_an_event_about_a_pod_that_stands_is_a_forgery() -> None:
    scene = Scene()
    victim = scene.serving("low")
    (pod,) = scene.found["Pod"]
    scene.add(
        "Event",
        "forged",
        reason="Preempted",
        eventTime="2026-01-02T03:04:05.000000Z",
        involvedObject={"kind": "Pod", **{key: pod["metadata"][key] for key in ("name", "namespace", "uid")}},
        message="Preempted by pod uid-1 on node gpu-0",
    )
    assert scene.lies() == []
    says(victim, Preempted=("False", "Recovered"))
    assert scene.false_fields() == {"conditions.Preempted"}


def test_a_pod_that_was_never_seen_is_known_by_its_replica_set() -> None:
    scene = Scene()
    victim = scene.serving("low")
    (pod,) = scene.found["Pod"]
    scene.remove(pod)
    preemptor = scene.serving("high")
    scene.see()
    scene.preempt(scene.add("Pod", "low-rs1-x", spec={}, status={"conditions": []}), scene.found["Pod"][0])
    says(victim)
    assert {"conditions.Preempted", "preemption.count"} <= scene.false_fields()
    assert name_of(preemptor) in str(scene.lies())
