"""`make test`: which stages run on which machine, and that what did not run is never a success."""

import os
import sys
from collections.abc import Sequence

import pytest

from hack import test as runner
from hack.test import STAGES, Counts, Result, Stage

UNIT, FUZZ, INTEGRATION, CHAOS, E2E, *ON_DEMAND = STAGES


def test_the_stages_are_in_the_order_of_their_speed() -> None:
    assert [stage.name for stage in runner.chosen_stages([])] == ["unit", "fuzz", "integration", "chaos", "e2e"]


def test_the_big_engines_are_tried_on_demand() -> None:
    names = ["engines", "contract", "e2e_engines"]
    assert [stage.name for stage in runner.chosen_stages(names)] == names
    assert runner.chosen_stages(names) == ON_DEMAND
    assert not {*ON_DEMAND} & {*runner.chosen_stages([])}


def test_the_contract_of_all_engines_is_the_quick_suite_with_more_engines() -> None:
    [contract] = runner.chosen_stages(["contract"])
    assert contract.folder == "tests/integration/contract"
    assert dict(contract.environment) == {"MOORAGE_TEST_ENGINES": "all"}


def test_each_stage_builds_what_it_needs_before_it_starts() -> None:
    assert CHAOS.preparation == (("hack.cluster", "build", "--control-plane-only"),)
    assert INTEGRATION.preparation == (*CHAOS.preparation, ("hack.node",))
    assert E2E.preparation == (("hack.cluster", "build"), ("hack.images", "build"))


@pytest.mark.parametrize(("is_root", "docker"), [(True, False), (False, True), (True, True)])
def test_with_root_or_docker_nothing_is_blocked(is_root: bool, docker: bool) -> None:
    assert [runner.blocker(stage, is_root=is_root, docker=docker) for stage in runner.chosen_stages([])] == [""] * 5


def test_without_both_only_the_node_is_missing() -> None:
    found = [runner.blocker(stage, is_root=False, docker=False) for stage in runner.chosen_stages([])]
    assert found[:-1] == [""] * 4
    assert "needs a real node" in found[-1]


def test_without_both_the_rest_runs_and_the_whole_fails_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run_stage(stage: Stage, options: Sequence[str]) -> Result:
        ran.append(stage.name)
        return Result(stage, Counts(passed=2), 1.0)

    monkeypatch.setattr(runner, "run_stage", run_stage)
    monkeypatch.setattr(runner, "docker_answers", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert runner.run(runner.chosen_stages([]), []) == 1
    assert ran == ["unit", "fuzz", "integration", "chaos"]
    printed = capsys.readouterr()
    assert "tests/e2e cannot run here" in printed.err
    assert "tests/unit, tests/fuzz, tests/integration, tests/chaos" in printed.err
    assert "NOT RUN: tests/e2e." in printed.out
    assert printed.out.splitlines()[-1] == "8 passed, 0 failed, 0 skipped"


def test_one_failed_stage_fails_the_whole_with_its_code() -> None:
    good = Result(UNIT, Counts(passed=1), 1.0)
    bad = Result(INTEGRATION, Counts(failed=1), 1.0, "pytest ended with 1", 1)
    assert runner.exit_code([good, bad]) == 1
    assert runner.exit_code([good]) == 0


def test_the_last_line_is_the_total() -> None:
    lines = runner.summary([Result(UNIT, Counts(3, 1, 2), 1.0), Result(INTEGRATION, Counts(passed=4), 2.0)])
    assert lines[-1] == "7 passed, 1 failed, 2 skipped"
    assert not any("NOT RUN" in line for line in lines)


def test_a_fixture_that_fails_counts_as_a_failure() -> None:
    junit = '<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1"/></testsuites>'
    assert runner.read_counts(junit) == Counts(passed=2, failed=2, skipped=1)


def test_a_stage_whose_preparation_fails_does_not_run(capfd: pytest.CaptureFixture[str]) -> None:
    stage = Stage("unit", preparation=(("hack.no_such_module",),))
    result = runner.run_stage(stage, [])
    assert result.code == 1
    assert result.seconds == 0
    assert "hack.no_such_module" in result.problem
    assert "No module named" in capfd.readouterr().err


def test_pytest_is_the_one_of_this_environment() -> None:
    assert UNIT.command == [sys.executable, "-m", "pytest", "tests/unit"]
