"""The benchmark of preemption: what its watches keep, and from what was measured to its last line."""

import asyncio
import json
from typing import Any

import pytest

from hack.bench._goals import goal_rows
from hack.bench._harness import report
from hack.bench._preemption_result import GOALS, Figures, notes_of, table, values_of
from hack.bench._preemption_sides import BARE_GPU, Arrival, deployment
from hack.bench._preemption_watch import Seen, victim_of
from hack.bench.preemption import Options, parse

Object = dict[str, Any]
OURS = Figures([Arrival(0.1, 0.2, 0.3, 0.4, (0.05, 0.25)), Arrival(0.1, 0.2, 0.6, 0.7, (0.1, 1.2))], cpu=[0.02])
BARE = Figures([Arrival(0.1, 0.15, 0.2, 0.2), Arrival(0.1, 0.15, 0.4, 0.4)])


def test_the_values_have_the_names_that_the_table_of_benchmarks_demands() -> None:
    values = values_of(OURS, BARE)
    assert list(values) == ["running_vs_scheduler", "told_ms_p50", "told_ms_max"]
    assert values == {"running_vs_scheduler": 1.5, "told_ms_p50": 250.0, "told_ms_max": 1200.0}
    assert {row[0]: row[3] for row in goal_rows(values, GOALS)} == {
        "running_vs_scheduler": "met",
        "told_ms_p50": "met",
        "told_ms_max": "missed",
    }


def test_the_last_line_is_one_object_with_notes(capsys: pytest.CaptureFixture[str]) -> None:
    report("preemption", values_of(OURS, BARE), {"kubernetes": "1"}, notes_of(80, 2, 1, 10))
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["bench"] == "preemption"
    assert last["notes"]["noise"] == "1 of 10 measurements began on a machine that was not quiet"
    assert "noise" not in notes_of(80, 2, 0, 10)


def test_the_table_has_a_column_for_each_side_and_says_where_there_is_nothing() -> None:
    header, rows = table({"bare": BARE, "ours": OURS})
    assert header[1:] == ["bare", "ours"]
    assert {len(row) for row in rows} == {3}
    assert rows[2][1:] == ["300  (200-400, n=2)", "450  (300-600, n=2)"]
    assert [row[1] for row in rows[4:]] == ["-", "-"]


def pod(name: str, *, ready: bool = False, ending: bool = False, **labels: str) -> Object:
    metadata: Object = {"name": name, "labels": labels, **({"deletionTimestamp": "now"} if ending else {})}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def test_a_pod_is_lost_when_that_is_first_seen_by_its_end_or_by_the_event() -> None:
    seen = Seen()
    seen.see_pod("ADDED", pod("a", ready=True), 1.0)
    seen.see_event("ADDED", {"reason": "Preempted", "involvedObject": {"kind": "Pod", "name": "a"}}, 2.0)
    seen.see_pod("MODIFIED", pod("a", ready=True, ending=True), 3.0)
    seen.see_pod("MODIFIED", pod("b", ending=True), 4.0)
    seen.see_pod("DELETED", pod("c"), 5.0)
    assert seen.lost_at == {"a": 2.0, "b": 4.0, "c": 5.0}
    assert seen.made_at == {"a": 1.0, "b": 4.0}


def test_other_events_are_of_no_victim() -> None:
    assert victim_of({"reason": "Killing", "involvedObject": {"kind": "Pod", "name": "a"}}) == ""
    assert victim_of({"reason": "Preempted", "involvedObject": {"kind": "InferenceModel", "name": "a"}}) == ""


def test_ready_pods_are_those_of_the_label_that_go_on() -> None:
    seen = Seen()
    for one in (pod("a", ready=True, app="x"), pod("b", app="x"), pod("c", ready=True, app="y")):
        seen.see_pod("ADDED", one, 1.0)
    seen.see_pod("ADDED", pod("d", ready=True, ending=True, app="x"), 1.0)
    assert seen.ready_pods("app", "x") == ["a"]


def told(name: str, by: str | None, preempted: str) -> Object:
    status = {"conditions": [{"type": "Preempted", "status": preempted}], **({"preemptedBy": by} if by else {})}
    return {"metadata": {"name": name}, "status": status}


def test_a_model_tells_when_it_names_the_taker() -> None:
    seen = Seen()
    seen.see_model("MODIFIED", told("low", None, "True"), 1.0)
    seen.see_model("MODIFIED", told("low", "ours/high", "True"), 2.0)
    seen.see_model("MODIFIED", told("low", "ours/high", "True"), 3.0)
    assert seen.told_at == {("low", "ours/high"): 2.0}


async def test_what_never_comes_is_told_by_name() -> None:
    with pytest.raises(TimeoutError, match="after 0 s still not: the impossible"):
        await Seen().until("the impossible", lambda: False, 0.01)
    assert await asyncio.wait_for(Seen().until("the obvious", lambda: True), 1) > 0


def test_the_bare_side_asks_for_its_own_gpus_by_the_same_classes() -> None:
    made = deployment("low", 3, 80, 1)
    spec = made["spec"]["template"]["spec"]
    assert made["spec"]["replicas"] == 80
    assert spec["priorityClassName"] == "moorage-3"
    assert spec["containers"][0]["resources"]["limits"][BARE_GPU] == "1"


@pytest.mark.parametrize("wrong", [["--gpus", "12"], ["--taken", "9"], ["--taken", "0"], ["--pairs", "0"]])
def test_options_that_make_no_sense_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(wrong)
    assert "--gpus must be a multiple of 8" in capsys.readouterr().err
    assert parse([]) == Options(gpus=80, taken=2, pairs=5, patience=10.0)
