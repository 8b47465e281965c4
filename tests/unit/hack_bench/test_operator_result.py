"""From what was measured of both sides to the last line of the operator's benchmark."""

import json

import pytest

from hack.bench._goals import Goal, goal_rows
from hack.bench._harness import report
from hack.bench._operator_memory import Memory, pod_of
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

NAMES = [
    "child_p50_vs_bare",
    "ready_1000_vs_bare",
    "cpu_per_cr_vs_bare",
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
        rss_mb=[60.0],
    )


OURS, BARE = figures(2), figures(1)
FINAL = Final(quiet_writes=0, restart_writes=1, restart_seconds=1.5, memory=Memory(grown=100, restarted=119.96))


def test_the_values_have_the_names_that_the_table_of_benchmarks_demands() -> None:
    assert list(values_of(OURS, BARE, FINAL)) == NAMES


def test_latency_and_cpu_are_ours_to_bare_but_throughput_is_bare_to_ours() -> None:
    values = values_of(OURS, BARE, FINAL)
    assert values["child_p50_vs_bare"] == 2
    assert values["cpu_per_cr_vs_bare"] == 2
    assert values["ready_1000_vs_bare"] == 0.5


def test_status_is_in_milliseconds_and_memory_is_the_worse_of_both() -> None:
    values = values_of(OURS, BARE, FINAL)
    assert values["status_p50_ms"] == 10
    assert values["status_p99_ms"] == 80
    assert values["rss_mb_5000"] == 120


def test_missed_goals_come_first() -> None:
    rows = goal_rows(values_of(OURS, BARE, FINAL), goals_of(OURS))
    verdicts = [row[3] for row in rows]
    assert len(rows) == len(NAMES)
    assert verdicts == sorted(verdicts, key=["missed", "?", "met"].index)
    assert {row[0] for row in rows if row[3] == "missed"} == {
        "child_p50_vs_bare",
        "ready_1000_vs_bare",
        "restart_writes",
        "status_p99_ms",
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
    final = Final(quiet_writes=0, restart_writes=0, restart_seconds=1, memory=None)
    report("operator", values_of(OURS, BARE, final), {}, notes_of(Options(), final))
    line = json.loads(capsys.readouterr().out)
    assert line["values"]["rss_mb_5000"] is None
    assert "left out" in line["notes"]["rss_mb_5000"]


def test_another_number_of_models_than_1000_is_noted() -> None:
    assert "N = 300" in notes_of(Options(models=300), FINAL)["ready_1000_vs_bare"]
    assert "ready_1000_vs_bare" not in notes_of(Options(models=1000), FINAL)


def test_both_sides_are_in_every_row_of_the_table() -> None:
    header, rows = sides_table({"bare": BARE, "ours": OURS})
    assert header[1:] == ["bare", "ours"]
    assert all(len(row) == 3 for row in rows)


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7


def test_the_command_line() -> None:
    assert parse([]) == Options(models=300, rss_models=5000)
    assert parse(["--models", "1000"]).models == 1000
    assert parse(["--quick"]).rss_models == 0


def test_a_pod_is_that_of_its_model_and_leaves_the_template_alone() -> None:
    template = {"metadata": {"labels": {"moorage.dev/model": "other", "kept": "yes"}}, "spec": {"containers": []}}
    pod = pod_of(template, "mine", "uid-of-mine")
    assert pod["metadata"]["labels"]["moorage.dev/model"] == "mine"
    assert pod["metadata"]["labels"]["moorage.dev/model-uid"] == "uid-of-mine"
    assert pod["metadata"]["labels"]["kept"] == "yes"
    assert template["metadata"] == {"labels": {"moorage.dev/model": "other", "kept": "yes"}}
