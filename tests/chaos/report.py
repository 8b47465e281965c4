"""What the scenarios have shown: runs and times to converge, for the table at the end."""

import math
import re
import statistics
from dataclasses import dataclass, field

_NUMBER = re.compile(r"test_fault_(\d+)_(\w+)(?:\[(.+)\])?")


@dataclass
class Scenario:
    """The runs of one test."""

    test: str
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    result: str = "failed"

    def converged(self, seconds: float, runs: int = 1) -> None:
        """A run, or several at a time, came to its end after so many seconds."""
        self.seconds += [seconds] * runs

    def note(self, text: str) -> None:
        """A figure of the row's own."""
        self.notes.append(text)

    @property
    def title(self) -> str:
        """Number and name of the fault."""
        parts = _NUMBER.match(self.test)
        if not parts:
            return f"    {self.test.removeprefix('test_').replace('_', ' ')}"
        number, name, variant = parts.groups()
        return f"{number}  {name.replace('_', ' ')}" + (f" ({variant})" if variant else "")

    @property
    def line(self) -> str:
        """One line of the table."""
        times = f"{statistics.median(self.seconds):6.1f}{max(self.seconds):7.1f}" if self.seconds else " " * 13
        notes = f"  {'; '.join(self.notes)}" if self.notes else ""
        return f"{self.title:<62}{len(self.seconds):>5}{times}  {self.result}{notes}"


def table(scenarios: list[Scenario]) -> list[str]:
    """The table, in the order of the faults' numbers."""
    head = f"{'#   fault':<62}{'runs':>5}{'p50 s':>7}{'max s':>6}  result"
    lines = [scenario.line for scenario in sorted(scenarios, key=lambda s: s.title)]
    return [head, *lines, _total(scenarios)]


def _total(scenarios: list[Scenario]) -> str:
    passed = len([scenario for scenario in scenarios if scenario.result == "passed"])
    seconds = sorted(second for scenario in scenarios for second in scenario.seconds)
    figures = f", p50 {_share(seconds, 0.5):.1f} s, p95 {_share(seconds, 0.95):.1f} s" if seconds else ""
    return f"{passed} of {len(scenarios)} scenarios passed; {len(seconds)} runs{figures} to converge"


def _share(ordered: list[float], share: float) -> float:
    """The value that this share of all does not exceed.

    >>> _share([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
