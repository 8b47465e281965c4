"""From what was measured of all sides to the last line of the operator's benchmark."""

import json
from dataclasses import replace
from typing import Any

import kubernetes
import pytest

from hack.bench import kopf_operator
from hack.bench._goals import Goal, goal_rows
from hack.bench._harness import report
from hack.bench._operator_memory import Memory, pod_of
from hack.bench._operator_restart import watched
from hack.bench._operator_result import (
    Figures,
    Final,
    Options,
    goals_of,
    notes_of,
    quantile,
    sides_table,
    values_of,
)
from hack.bench.operator import parse
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.desired import desired
from tests.support.fault_proxy import call_of
from tests.unit.operator.support import CONFIG, live_model

NAMES = [
    "child_p50_vs_kopf",
    "ready_1000_vs_kopf",
    "cpu_per_cr_vs_kopf",
    "cpu_per_cr_ms",
    "cpu_per_cr_vs_bare",
    "rss_mb_start",
    "rss_mb_1000",
    "restart_1000_s",
    "kopf_restart_s",
    "writes_per_cr",
    "quiet_writes_60s",
    "restart_writes",
    "rss_mb_5000",
    "status_p50_ms",
    "status_p99_ms",
]


def figures(scale: float) -> Figures:
    return Figures(
        child=[0.01 * scale] * 3,
        told=[0.004 * scale, 0.005 * scale, 0.04 * scale],
        all_children=[3.0 * scale],
        all_ready=[4.0 * scale, 5.0 * scale, 6.0 * scale],
        cpu_per_model=[0.004 * scale],
        writes_per_model=[5.0],
        changes_per_model=[3.0],
        rss_start_mb=[40.0 * scale],
        rss_mb=[60.0 * scale],
    )


OURS, KOPF, BARE = figures(2), figures(1.6), figures(1)
ALL = {"bare": BARE, "kopf_operator": KOPF, "ours": OURS}
FINAL = Final(
    quiet_writes=0,
    restart_writes=1,
    restart_seconds=1.5,
    kopf_restart_seconds=2.25,
    memory=Memory(grown=100, restarted=119.96),
)


def test_the_values_have_the_names_that_the_table_of_benchmarks_demands() -> None:
    assert list(values_of(ALL, FINAL)) == NAMES


def test_latency_and_cpu_are_ours_to_theirs_but_throughput_is_theirs_to_ours() -> None:
    values = values_of(ALL, FINAL)
    assert values["child_p50_vs_kopf"] == 1.25
    assert values["cpu_per_cr_vs_kopf"] == 1.25
    assert values["ready_1000_vs_kopf"] == 0.8
    assert values["cpu_per_cr_vs_bare"] == 2


def test_times_and_memory_are_ours_in_the_units_of_their_names_and_the_worse_memory_counts() -> None:
    values = values_of(ALL, FINAL)
    assert values["cpu_per_cr_ms"] == 8
    assert (values["restart_1000_s"], values["kopf_restart_s"]) == (1.5, 2.25)
    assert values["status_p50_ms"] == 10
    assert values["status_p99_ms"] == 80
    assert (values["rss_mb_start"], values["rss_mb_1000"], values["rss_mb_5000"]) == (80, 120, 120)


def test_missed_goals_come_first_and_the_bare_loop_is_no_goal() -> None:
    rows = goal_rows(values_of(ALL, FINAL), goals_of(OURS))
    verdicts = [row[3] for row in rows]
    assert [name for name in NAMES if name not in {row[0] for row in rows}] == ["cpu_per_cr_vs_bare"]
    assert verdicts == sorted(verdicts, key=["missed", "?", "met"].index)
    assert {row[0] for row in rows if row[3] == "missed"} == {
        "child_p50_vs_kopf",
        "ready_1000_vs_kopf",
        "restart_writes",
    }


def test_writes_beyond_children_and_changes_of_status_miss_the_goal() -> None:
    goal = goals_of(OURS)["writes_per_cr"]
    assert goal.bound == 6  # three children and three changes
    assert goal.verdict(6) == "met"
    assert goal.verdict(6.01) == "missed"


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (Goal("≤", 0), 0, "met"),
        (Goal("≤", 0), 1, "missed"),
        (Goal("≥", 0.6), 0.6, "met"),
        (Goal("≥", 0.6), 0.59, "missed"),
        (Goal("≥", 0.6), None, "?"),
    ],
)
def test_a_bound_is_inclusive(goal: Goal, value: float | None, verdict: str) -> None:
    assert goal.verdict(value) == verdict


def test_a_value_that_was_left_out_is_null_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    final = replace(FINAL, kopf_restart_seconds=None, memory=None)
    report("operator", values_of(ALL, final), {}, notes_of(Options(), final))
    line = json.loads(capsys.readouterr().out)
    assert line["values"]["rss_mb_5000"] is None
    assert "left out" in line["notes"]["rss_mb_5000"]
    assert line["values"]["kopf_restart_s"] is None
    assert "ERROR of 500" in line["notes"]["kopf_restart_s"]


def test_another_number_of_models_than_1000_is_noted() -> None:
    of_1000 = {name for name in NAMES if "1000" in name}
    notes = notes_of(Options(models=300), FINAL)
    assert {name for name, note in notes.items() if "N = 300" in note} == of_1000
    assert not of_1000 & notes_of(Options(models=1000), FINAL).keys()


def test_all_sides_are_in_every_row_of_the_table() -> None:
    header, rows = sides_table(ALL)
    assert header[1:] == ["bare", "kopf_operator", "ours"]
    assert all(len(row) == 4 for row in rows)


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7


def test_the_command_line() -> None:
    assert parse([]) == Options(models=1000, rss_models=5000)
    assert parse(["--models", "50"]).models == 50
    assert parse(["--quick"]).rss_models == 0


def test_a_pod_is_that_of_its_model_and_leaves_the_template_alone() -> None:
    template = {"metadata": {"labels": {"moorage.dev/model": "other", "kept": "yes"}}, "spec": {"containers": []}}
    pod = pod_of(template, "mine", "uid-of-mine")
    assert pod["metadata"]["labels"]["moorage.dev/model"] == "mine"
    assert pod["metadata"]["labels"]["moorage.dev/model-uid"] == "uid-of-mine"
    assert pod["metadata"]["labels"]["kept"] == "yes"
    assert template["metadata"] == {"labels": {"moorage.dev/model": "other", "kept": "yes"}}


def test_the_first_watch_of_each_kind_counts_and_nothing_else() -> None:
    path = "/api/v1/{}"
    calls = [
        call_of("GET", path.format("pods"), at=1),
        call_of("GET", path.format("services"), watch=True, at=2),
        call_of("GET", path.format("pods"), watch=True, at=3),
        call_of("GET", path.format("services"), watch=True, at=4),
    ]
    assert watched(calls) == {"services": 2, "pods": 3}


CHILDREN = {
    "Service": ("CoreV1Api", "service"),
    "Deployment": ("AppsV1Api", "deployment"),
    "PodDisruptionBudget": ("PolicyV1Api", "pod_disruption_budget"),
}


def test_the_minimal_kopf_operator_makes_the_same_children(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, object]] = []
    for kind, (api, word) in CHILDREN.items():
        client = getattr(kubernetes.client, api)
        monkeypatch.setattr(client, f"create_namespaced_{word}", lambda _, *given, k=kind: made.append((k, given)))
        monkeypatch.setattr(client, f"patch_namespaced_{word}", lambda _, *given, k=kind: made.append((k, given)))
    monkeypatch.setattr(kopf_operator, "CONFIG", CONFIG)
    body = live_model("tiny")
    children = desired(InferenceModel.model_validate(body), CONFIG)
    given: dict[str, Any] = {"body": body, "namespace": "team-a", "name": "tiny"}
    kopf_operator.create_children(**given)
    assert made == [(child["kind"], ("team-a", child)) for child in children]
    made.clear()
    kopf_operator.update_children(**given)
    assert made == [(child["kind"], ("tiny", "team-a", child)) for child in children]
