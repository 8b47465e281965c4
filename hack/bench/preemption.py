"""`python -m hack.bench.preemption`: a model that preempts others, against a bare pair of Deployments.

80 fake GPUs are full of models of low priority, and as many of another name, on the same nodes, of the pods of one bare
Deployment of low priority. Then by turns a model and a bare Deployment of the highest priority preempt some,
and go again. How long until the pod runs, and how long until the victims say to whom they lost their place?
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from hack.bench._goals import goal_rows
from hack.bench._harness import DEFAULT_PAIRS, machine, print_table, quiet, report, version_of
from hack.bench._kube import connect
from hack.bench._operator_sides import Ours, cpu_of, guard
from hack.bench._preemption_result import GOALS, Figures, notes_of, table, values_of
from hack.bench._preemption_sides import Arrival, Deployments, Models, Side, StuckError, offer_gpus
from hack.cluster.api import Cluster, ClusterOptions, down, up
from hack.cluster.locking import locked
from hack.cluster.options import MAX_GPUS_PER_NODE
from hack.cluster.paths import clusters_root
from hack.cluster.toolchain.catalog import KUBERNETES_VERSION
from tests.support.operator import install, kubeconfig_of

CLUSTER = "bench-preemption"
MOST_STUCK = 5


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    gpus: int = 80
    taken: int = 2
    pairs: int = DEFAULT_PAIRS
    patience: float = 10.0


@dataclass
class Bench:
    """The operator and both sides, and what is known so far."""

    options: Options
    operator: Ours
    sides: tuple[Side, ...]
    busy: int = 0
    measured: int = 0
    stuck: int = 0
    """Arrivals that the scheduler forgot; each was tried again."""

    async def run(self) -> dict[str, Figures]:
        """All pairs, in turned order each other time, after one of each that is not counted."""
        figures = {side.name: Figures() for side in self.sides}
        for side in self.sides:
            began = time.monotonic()
            await side.fill()
            say(f"{side.name}: {self.options.gpus} GPUs full in {time.monotonic() - began:.0f} s")
        for number in range(self.options.pairs + 1):
            for side in self.sides if number % 2 else self.sides[::-1]:
                counted = Figures() if number == 0 else figures[side.name]
                await self._measure(side, number, counted)
        return figures

    async def _measure(self, side: Side, number: int, figures: Figures) -> None:
        busy = not await quiet(self.options.patience)
        cpu = cpu_of(self.operator)
        arrival = await self._arrive(side, number)
        await side.leave(number)
        figures.arrivals.append(arrival)
        if arrival.told:
            figures.cpu.append(cpu_of(self.operator) - cpu)
        if number:
            self.busy, self.measured = self.busy + busy, self.measured + 1
        say(f"{side.name}: runs after {arrival.running * 1000:.0f} ms{'' if number else ' (not counted)'}")

    async def _arrive(self, side: Side, number: int) -> Arrival:
        while True:
            try:
                return await side.arrive(number)
            except StuckError:
                if self.stuck == MOST_STUCK:
                    raise
                self.stuck += 1
                say(f"{side.name}: the scheduler has forgotten it; once more")
                await side.leave(number)


@contextmanager
def cluster_of(gpus: int) -> Iterator[Cluster]:
    """A control plane with the chart applied and so many fake GPUs; gone afterwards."""
    down(CLUSTER)
    try:
        cluster = up(ClusterOptions(name=CLUSTER, control_plane_only=True, gpus=gpus))
        install(cluster)
        yield cluster
    finally:
        down(CLUSTER)


async def measure(cluster: Cluster, options: Options, folder: Path) -> tuple[Bench, dict[str, Figures]]:
    """Everything, on a running cluster."""
    async with connect(cluster.kubeconfig) as http:
        await offer_gpus(http, MAX_GPUS_PER_NODE)
        operator = Ours(kubeconfig_of(cluster, folder / "kubeconfig"), folder / "operator.log")
        sides = _sides(http, options)
        bench = Bench(options, operator, sides)
        operator.start()
        try:
            async with asyncio.TaskGroup() as group:
                guarding = group.create_task(guard(operator))
                figures = await bench.run()
                guarding.cancel()
            errors = operator.process.errors()
            assert not errors, f"the operator logged errors: {errors[:3]}"
            return bench, figures
        finally:
            operator.stop()
            for side in sides:
                side.stop()


def _sides(http: aiohttp.ClientSession, options: Options) -> tuple[Side, ...]:
    return Deployments(http, options.gpus, options.taken), Models(http, options.gpus, options.taken)


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.preemption", description=__doc__)
    parser.add_argument("--gpus", type=int, default=Options.gpus, help="GPUs of each side, eight a node")
    parser.add_argument("--taken", type=int, default=Options.taken, help="GPUs that the one of high priority needs")
    parser.add_argument("--pairs", type=int, default=Options.pairs, help="measurements of each side")
    parser.add_argument("--patience", type=float, default=Options.patience, help="seconds to wait for a quiet machine")
    given = parser.parse_args(arguments)
    if given.gpus % MAX_GPUS_PER_NODE or not 0 < given.taken <= MAX_GPUS_PER_NODE or given.pairs < 1:
        parser.error("--gpus must be a multiple of 8, --taken from 1 to 8, --pairs at least 1")
    return Options(given.gpus, given.taken, given.pairs, given.patience)


def main() -> int:
    """Measure, print the tables and the last line."""
    options = parse(sys.argv[1:])
    # Told to end, it must still take its cluster away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began, before = time.monotonic(), machine()
    alone = locked(clusters_root() / f".{CLUSTER}-run.lock", "another run of this benchmark")
    with alone, cluster_of(options.gpus) as cluster, tempfile.TemporaryDirectory() as folder:
        bench, figures = uvloop.run(measure(cluster, options, Path(folder)))
    print(f"{before}; {options.pairs} pairs, {time.monotonic() - began:.0f} s\n")
    print_table(*table(figures))
    print()
    values = values_of(figures["ours"], figures["bare"])
    print_table(["figure", "value", "goal", ""], goal_rows(values, GOALS))
    print()
    versions = {name: version_of(name) for name in ("moorage-operator", "aiohttp", "uvloop", "pydantic")}
    notes = notes_of(options.gpus, options.taken, bench.busy, bench.measured)
    if bench.stuck:
        notes["stuck"] = f"{bench.stuck} times the scheduler forgot a pod (kubernetes/kubernetes#141694); tried again"
    report("preemption", values, versions | {"kubernetes": KUBERNETES_VERSION}, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
