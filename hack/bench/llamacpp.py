"""The runtime against xllamacpp's server and llama_cpp.server: `python -m hack.bench.llamacpp`.

Gemma-3-270M Q4_K_M, 16 slots, prompts of some 70 tokens, 64 new tokens, greedy, streamed through /v1/completions; every
prompt is new, so that no side profits from a cache. The direct side gets the parameters that the runtime gives its
engine. The front alone is measured with a mock engine in C (mock_sse.c): tokens per second of CPU time of the front.
"""

import argparse
import os
import random
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec
import uvloop

from hack.bench import _engines_llamacpp as engines
from hack.bench._harness import (
    DEFAULT_PAIRS,
    Samples,
    alternate,
    alternate_sync,
    cpu_seconds,
    machine,
    print_table,
    quiet,
    ratio,
    report,
    version_of,
)
from hack.bench._processes import Served, mock
from hack.bench._streams import load
from hack.models import model_path

MODEL = "gemma3-270m"
NEW_TOKENS = 64
PROMPT_WORDS = 58
CONCURRENCIES = (1, 4, 8, 16)
REQUESTS = {1: 4, 4: 8, 8: 8, 16: 16}
RIVAL_AT = (8, 16)
WORDS = "the of and to in is that it was for on are as with his they at be this from have or by one had not but"


@dataclass
class Figures:
    """Everything measured: by server and concurrency, tokens per second and times to the first token."""

    tokens: dict[tuple[str, int], Samples] = field(default_factory=dict)
    first: dict[str, Samples] = field(default_factory=dict)
    cpu: dict[tuple[str, int], Samples] = field(default_factory=dict)
    """CPU milliseconds of a server's processes for each token: what a busy machine disturbs least."""
    patience: float = 20.0
    busy: int = 0
    """Measurements that began on a machine that was busy with something else."""


def bodies(number: int, name: str, seed: str) -> list[bytes]:
    """Write requests whose prompts nobody has seen before."""
    rng = random.Random(seed)  # noqa: S311 - prompts, not secrets
    return [
        msgspec.json.encode(
            {
                "model": name,
                "prompt": f"{rng.randrange(10**6)} " + " ".join(rng.choices(WORDS.split(), k=PROMPT_WORDS)),
                "max_tokens": NEW_TOKENS,
                "temperature": 0,
                "stream": True,
                "ignore_eos": True,
            }
        )
        for _ in range(number)
    ]


async def compare(setup: engines.Setup, servers: dict[str, Served], *, pairs: int, patience: float) -> Figures:
    """Measure all servers at all concurrencies, in turn; every round gives all of them the same prompts."""
    figures = Figures(first={name: Samples(name) for name in servers}, patience=patience)
    for name, server in servers.items():
        await load(server.port, bodies(2, setup.name, name), 2)
    for concurrency in CONCURRENCIES:
        taking_part = [n for n in servers if n != "llama_cpp.server" or concurrency in RIVAL_AT]
        sides = {n: partial(_measure, setup, n, servers[n], concurrency, count(), figures) for n in taking_part}
        for name, samples in (await alternate(sides, pairs=pairs)).items():
            figures.tokens[name, concurrency] = samples
        so_far = ", ".join(f"{name} {figures.tokens[name, concurrency].median:.1f} tok/s" for name in taking_part)
        print(f"c={concurrency}: {so_far}", file=sys.stderr, flush=True)
    return figures


async def _measure(  # noqa: PLR0913, PLR0917 - bound once by partial
    setup: engines.Setup, name: str, server: Served, concurrency: int, rounds: Iterator[int], figures: Figures
) -> float:
    # In each round all servers get the same prompts.
    requests = bodies(REQUESTS[concurrency], setup.name, f"{concurrency}/{next(rounds)}")
    figures.busy += not await quiet(figures.patience)
    before = cpu_seconds(server.pid, children=True)
    run = await load(server.port, requests, concurrency)
    cpu = (cpu_seconds(server.pid, children=True) - before) * 1000 / run.events
    figures.cpu.setdefault((name, concurrency), Samples(name)).values.append(cpu)
    if concurrency == 1:
        figures.first[name].values += [outcome.first for outcome in run.outcomes]
    return run.events_per_second


async def front_tokens(tick_us: int, streams: int, pairs: int) -> Samples:
    """Measure the front alone: events relayed per second of its CPU time."""
    samples = Samples("front")
    events = 400 if tick_us else 2000
    with (
        mock(events, tick_us, core=_cores()[-1]) as engine,
        engines.front(engine.port, core=_cores()[0]) as front,
    ):
        body = msgspec.json.encode({"model": "mock", "prompt": "hello", "stream": True})
        await load(front.port, [body] * streams, streams)
        for _ in range(pairs):
            before = cpu_seconds(front.pid)
            await load(front.port, [body] * streams * 4, streams)
            samples.values.append(events * streams * 4 / (cpu_seconds(front.pid) - before))
    return samples


def added_start(setup: engines.Setup, pairs: int) -> dict[str, Samples]:
    """Measure how long each takes from the start of its process to ready (ours: to its first real answer)."""

    def once(server: Callable[[engines.Setup], AbstractContextManager[Served]]) -> float:
        with server(setup) as served:
            return served.started

    return alternate_sync({"ours": partial(once, engines.ours), "direct": partial(once, engines.direct)}, pairs=pairs)


def run(pairs: int, *, rival: bool, patience: float) -> None:
    """Measure everything and print it."""
    setup = engines.Setup(model_path(MODEL), MODEL, context=512, slots=16, threads=min(2, len(_cores())))
    notes = {"machine": machine()}
    rival_version = None
    if rival:
        try:
            rival_version = engines.rival_version()
        except engines.RivalMissing as missing:
            notes["llama_cpp.server"] = str(missing)
    starts = added_start(setup, pairs)
    front = uvloop.run(front_tokens(0, 16, pairs))
    paced = uvloop.run(front_tokens(10_000, 256, 3))
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(engines.ours(setup)),
            "direct": stack.enter_context(engines.direct(setup)),
        }
        if rival_version:
            servers["llama_cpp.server"] = stack.enter_context(engines.llama_cpp_server(setup))
        figures = uvloop.run(compare(setup, servers, pairs=pairs, patience=patience))
    show(figures, starts, front, paced)
    notes["front_tok_s_mock"] = (
        f"16 streams as fast as they are taken; one event at a time on 256 streams: {paced.median:.0f} per CPU second, "
        "nearly all of it the two system calls of each event"
    )
    notes["cpu_per_token_vs_direct"] = ", ".join(
        f"c={c}: {ratio(figures.cpu['ours', c], figures.cpu['direct', c])}" for c in CONCURRENCIES
    )
    if figures.busy:
        notes["busy"] = f"{figures.busy} measurements began while the machine was busy with something else"
    notes["start"] = f"ready {statistics.median(starts['ours'].values) - starts['direct'].median:+.3f} s after direct"
    report(
        "llamacpp",
        values(figures, front, notes, skipped=not rival_version),
        {"xllamacpp": version_of("xllamacpp"), "llama-cpp-python": rival_version, "python": sys.version.split()[0]},
        notes,
    )


def values(figures: Figures, front: Samples, notes: dict[str, str], *, skipped: bool) -> dict[str, float | None]:
    """Give the values of the last line, by name (docs/benchmarks.md)."""
    found: dict[str, float | None] = {
        f"tok_s_c{c}_vs_direct": ratio(figures.tokens["ours", c], figures.tokens["direct", c]) for c in CONCURRENCIES
    }
    found["ttft_c1_vs_direct"] = ratio(figures.first["ours"], figures.first["direct"])
    for c in RIVAL_AT:
        name = f"tok_s_c{c}_vs_llama_cpp_server"
        theirs = figures.tokens.get(("llama_cpp.server", c))
        found[name] = ratio(figures.tokens["ours", c], theirs) if theirs else None
        if skipped:
            notes[name] = notes.get("llama_cpp.server", "not asked for")
    found["front_tok_s_mock"] = round(front.median)
    return found


def show(figures: Figures, starts: dict[str, Samples], front: Samples, paced: Samples) -> None:
    """Print the tables."""
    rows = [
        [name, c, f"{samples.median:.1f}", f"±{samples.spread:.0%}", f"{figures.cpu[name, c].median:.1f}"]
        for (name, c), samples in figures.tokens.items()
    ]
    print_table(["server", "streams", "tok/s", "noise", "CPU ms/token"], rows)
    print()
    print_table(
        ["server", "first token, 1 stream, ms", "n"],
        [[name, f"{s.median * 1000:.1f}", len(s.values)] for name, s in figures.first.items() if s.values],
    )
    print()
    print_table(["server", "ready after, s"], [[name, f"{s.median:.3f}"] for name, s in starts.items()])
    print()
    print_table(
        ["front with a mock engine", "tokens per CPU second"],
        [["16 streams, unpaced", f"{front.median:.0f}"], ["256 streams, one event each 10 ms", f"{paced.median:.0f}"]],
    )


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.llamacpp", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="rounds of each measurement")
    parser.add_argument("--no-rival", action="store_true", help="leave llama_cpp.server out")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet machine, each time")
    arguments = parser.parse_args()
    # So that the servers are ended too when a benchmark is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(arguments.pairs, rival=not arguments.no_rival, patience=arguments.patience)


if __name__ == "__main__":
    main()
