"""The goals of the benchmarks beside the figures: met, missed, or unknown. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound that a figure must keep, inclusive.

    >>> str(Goal("≤", 1.3)), Goal("≤", 1.3).verdict(1.3), Goal("≥", 0.6).verdict(0.5), Goal("≤", 120).verdict(None)
    ('≤ 1.3', 'met', 'missed', '?')
    """

    relation: str
    bound: float
    why: str = ""

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}" + (f" ({self.why})" if self.why else "")

    def verdict(self, value: float | None) -> str:
        """Whether `value` keeps it."""
        if value is None:
            return "?"
        kept = value <= self.bound if self.relation == "≤" else value >= self.bound
        return "met" if kept else "missed"


def goal_rows(values: Mapping[str, float | int | None], goals: Mapping[str, Goal]) -> list[list[str]]:
    """A row for each figure: name, figure, goal, verdict; missed goals first."""
    rows = [
        [name, "-" if value is None else f"{value:g}", str(goals.get(name, "")), goals[name].verdict(value)]
        for name, value in values.items()
        if name in goals
    ]
    order = {"missed": 0, "?": 1, "met": 2}
    return sorted(rows, key=lambda row: order[row[3]])
