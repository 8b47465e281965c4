"""What the benchmarks share: alternating pairs, medians, ratios, CPU time of a process tree, and the last line of JSON.

Both sides of a comparison run in one benchmark, alternating, on the same cores; medians are compared, since single runs
on a busy machine say little. The last line that a benchmark prints is one JSON object with its figures by name.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DEFAULT_PAIRS = 5


@dataclass
class Samples:
    """The measurements of one side of a comparison, in the order they were taken."""

    name: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle measurement; NaN when there is none."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Half the range over the median: how noisy the side was."""
        return (max(self.values) - min(self.values)) / 2 / self.median if self.values and self.median else math.nan


async def alternate(
    sides: Mapping[str, Callable[[], Awaitable[float]]], *, pairs: int = DEFAULT_PAIRS
) -> dict[str, Samples]:
    """Measure each side once in every round, in turned order each other round, so that drift hits all sides alike."""
    results = {name: Samples(name) for name in sides}
    for round_number in range(pairs):
        order = list(sides) if round_number % 2 == 0 else [*sides][::-1]
        for name in order:
            results[name].values.append(await sides[name]())
            _progress(round_number, pairs, name, results[name])
    return results


def alternate_sync(sides: Mapping[str, Callable[[], float]], *, pairs: int = DEFAULT_PAIRS) -> dict[str, Samples]:
    """Do what `alternate` does, for sides that are plain functions."""
    results = {name: Samples(name) for name in sides}
    for round_number in range(pairs):
        order = list(sides) if round_number % 2 == 0 else [*sides][::-1]
        for name in order:
            results[name].values.append(sides[name]())
            _progress(round_number, pairs, name, results[name])
    return results


def _progress(round_number: int, pairs: int, name: str, samples: Samples) -> None:
    """Say that a long run goes on; to stderr, as the tables are for stdout."""
    figure = f": {samples.values[-1]:.4g}" if samples.values[-1] else ""
    print(f"  round {round_number + 1} of {pairs}, {name}{figure}", file=sys.stderr)


def ratio(ours: Samples | float, theirs: Samples | float, digits: int = 3) -> float | None:
    """Divide the medians; None where a side has no figure, as JSON knows no NaN."""
    above = ours.median if isinstance(ours, Samples) else ours
    below = theirs.median if isinstance(theirs, Samples) else theirs
    if not below or math.isnan(above) or math.isnan(below):
        return None
    return round(above / below, digits)


def cpu_seconds(pid: int, *, children: bool = False) -> float:
    """User and system CPU seconds that a process has used, on wish with all its descendants."""
    process = psutil.Process(pid)
    family = [process, *(process.children(recursive=True) if children else [])]
    total = 0.0
    for member in family:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def rss_bytes(pid: int, *, children: bool = False) -> int:
    """Resident memory of a process, on wish with all its descendants (shared pages are counted in each)."""
    process = psutil.Process(pid)
    family = [process, *(process.children(recursive=True) if children else [])]
    return sum(member.memory_info().rss for member in family)


def version_of(distribution: str) -> str | None:
    """Give the installed version of a Python distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


async def quiet(patience: float, busy_percent: float = 20.0) -> bool:
    """Wait until the machine is quiet, `patience` seconds at most; tell whether it is. Ask before each measurement."""
    end = time.monotonic() + patience
    psutil.cpu_percent()
    while True:
        await asyncio.sleep(1.0)
        if psutil.cpu_percent() <= busy_percent:
            return True
        if time.monotonic() >= end:
            return False


def machine() -> str:
    """Name the machine in a few words: processor, cores usable here, load at this moment."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), model)
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, columns aligned."""
    table = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for number, row in enumerate(table):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    sys.stdout.flush()


def report(
    bench: str,
    values: Mapping[str, float | int | None],
    versions: Mapping[str, str | None],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Print the last line, one JSON object with the figures by name; a None value needs a note that says why."""
    missing = [name for name, value in values.items() if value is None and name not in (notes or {})]
    assert not missing, f"no figure and no note for {', '.join(missing)}"
    body: dict[str, object] = {"bench": bench, "values": dict(values), "versions": dict(versions)}
    if notes:
        body["notes"] = dict(notes)
    print(json.dumps(body), flush=True)
