"""The embedding service against infinity, a server without batching, and encode(): `python -m hack.bench.embeddings`.

all-MiniLM-L6-v2, two threads, single texts of 8 to 48 words, new ones in every round and the same for all sides, base64
over kept connections. Ours is the whole runtime, front and engine; the server without batching is bare.
"""

import argparse
import asyncio
import base64
import random
import signal
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import msgspec
import numpy as np
import uvloop

from hack.bench import _engines_embeddings as engines
from hack.bench._goals import Goal, goal_rows
from hack.bench._harness import (
    DEFAULT_PAIRS,
    Samples,
    alternate,
    cpu_seconds,
    machine,
    print_table,
    quiet,
    ratio,
    report,
)
from hack.engines.embedding_models import minilm_folder
from moorage_common.http.client import Pool
from moorage_runtime.collected import Collected

CLIENTS = 32
WORDS = "the of and to in is that it was for on are as with his they at be this from have or by one had not but market"

GOALS = {
    "c32_vs_infinity": Goal("≥", 1.5),
    "c32_vs_offline": Goal("≥", 0.75),
    "c32_vs_unbatched": Goal("≥", 2.2),
    "c1_p50_vs_unbatched": Goal("≤", 1.05),
    "min_cosine": Goal("≥", 0.9999),
}


@dataclass
class Figures:
    """Texts per second at 32 clients, the median time of one at 1 client, and CPU time."""

    many: dict[str, Samples] = field(default_factory=dict)
    alone: dict[str, Samples] = field(default_factory=dict)
    cpu: dict[str, Samples] = field(default_factory=dict)
    patience: float = 20.0
    busy: int = 0


@dataclass(frozen=True)
class Size:
    """How much is asked in a round."""

    pairs: int
    many: int = 320
    alone: int = 40


def texts(number: int, seed: str) -> list[str]:
    """Make texts that nobody has seen before."""
    rng = random.Random(seed)  # noqa: S311 - texts, not secrets
    return [" ".join(rng.choices(WORDS.split(), k=rng.randint(8, 48))) for _ in range(number)]


async def ask(pool: Pool, path: str, text: str) -> np.ndarray:
    """Embed one text."""
    answer = Collected()
    body = msgspec.json.encode({"model": "m", "input": text, "encoding_format": "base64"})
    await pool.exchange(pool.request_bytes("POST", path, body), answer)
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.content[:300]!r}")
    return np.frombuffer(base64.b64decode(msgspec.json.decode(answer.content)["data"][0]["embedding"]), dtype="<f4")


async def load(server: engines.Served, given: Sequence[str], clients: int) -> tuple[float, list[float]]:
    """Embed all texts, `clients` at a time; give the seconds for all and for each."""
    pool, waiting, times = Pool("127.0.0.1", server.port, keep=clients), list(reversed(given)), []
    clock = asyncio.get_running_loop().time

    async def client() -> None:
        while waiting:
            begun = clock()
            await ask(pool, server.path, waiting.pop())
            times.append(clock() - begun)

    begun = clock()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    pool.close()
    return clock() - begun, times


async def compare(servers: dict[str, engines.Served], encode: engines.Offline, size: Size, figures: Figures) -> float:
    """Measure all sides in turn; give the least cosine of ours to the server without batching."""
    for server in servers.values():
        await load(server, texts(16, "warm"), 8)

    async def many(name: str, rounds: "count[int]") -> float:
        given = texts(size.many, f"many/{next(rounds)}")
        figures.busy += not await quiet(figures.patience)
        if name == "offline":
            return len(given) / await asyncio.to_thread(encode.seconds, given)
        before = cpu_seconds(servers[name].pid, children=True)
        seconds, _ = await load(servers[name], given, CLIENTS)
        cpu = (cpu_seconds(servers[name].pid, children=True) - before) * 1000 / len(given)
        figures.cpu.setdefault(name, Samples(name)).values.append(cpu)
        return len(given) / seconds

    async def alone(name: str, rounds: "count[int]") -> float:
        given = texts(size.alone, f"alone/{next(rounds)}")
        figures.busy += not await quiet(figures.patience)
        return statistics.median((await load(servers[name], given, 1))[1])

    figures.many = await alternate(_sides(many, [*servers, "offline"]), pairs=size.pairs)
    figures.alone = await alternate(_sides(alone, list(servers)), pairs=size.pairs)
    return await least_cosine(servers["ours"], servers["unbatched"], texts(CLIENTS * 2, "cosine"))


def _sides(
    measure: "Callable[[str, count[int]], Awaitable[float]]", names: Sequence[str]
) -> dict[str, Callable[[], Awaitable[float]]]:
    return {name: partial(measure, name, count()) for name in names}


async def least_cosine(ours: engines.Served, alone: engines.Served, given: Sequence[str]) -> float:
    """Embed the same texts all at once here and one by one there."""
    here, there = Pool("127.0.0.1", ours.port), Pool("127.0.0.1", alone.port)
    found = await asyncio.gather(*(ask(here, ours.path, text) for text in given))
    expected = [await ask(there, alone.path, text) for text in given]
    here.close()
    there.close()
    left, right = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
    cosine = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return float(cosine.min())


def run(size: Size, *, rival: bool, patience: float) -> None:
    """Measure everything and print it."""
    model, notes, version = minilm_folder(), {"machine": machine()}, None
    if rival:
        try:
            version = engines.infinity_version()
        except engines.RivalMissing as missing:
            notes["c32_vs_infinity"] = str(missing)
    else:
        notes["c32_vs_infinity"] = "not asked for"
    figures = Figures(patience=patience)
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(engines.ours(model)),
            "unbatched": stack.enter_context(engines.naive(model)),
        }
        if version:
            servers["infinity"] = stack.enter_context(engines.infinity(model))
        encode = stack.enter_context(engines.offline(model))
        cosine = uvloop.run(compare(servers, encode, size, figures))
    if figures.busy:
        notes["busy"] = f"{figures.busy} measurements began while the machine was busy with something else"
    values = values_of(figures, cosine)
    show(figures, values)
    report("embeddings", values, {"infinity-emb": version, "python": sys.version.split()[0]}, notes)


def values_of(figures: Figures, cosine: float) -> dict[str, float | None]:
    """Give the values of the last line, by name (docs/benchmarks.md)."""
    ours, many = figures.many["ours"], figures.many
    return {
        "c32_vs_infinity": ratio(ours, many["infinity"]) if "infinity" in many else None,
        "c32_vs_offline": ratio(ours, many["offline"]),
        "c32_vs_unbatched": ratio(ours, many["unbatched"]),
        "c1_p50_vs_unbatched": ratio(figures.alone["ours"], figures.alone["unbatched"]),
        "min_cosine": round(cosine, 7),
    }


def show(figures: Figures, values: dict[str, float | None]) -> None:
    """Print the tables."""
    rows = []
    for name, samples in figures.many.items():
        alone, cpu = figures.alone.get(name), figures.cpu.get(name)
        rows.append(
            [
                *(name, f"{samples.median:.1f}", f"±{samples.spread:.0%}"),
                f"{alone.median * 1000:.1f}" if alone else "-",
                f"{cpu.median:.1f}" if cpu else "-",
            ]
        )
    print_table(["side", f"texts/s, {CLIENTS} clients", "noise", "p50 ms, 1 client", "CPU ms/text"], rows)
    print()
    print_table(["figure", "value", "goal", ""], goal_rows(values, GOALS))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.embeddings", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="rounds of each measurement")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs, measures nothing")
    parser.add_argument("--no-rival", action="store_true", help="leave infinity out")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet machine, each time")
    arguments = parser.parse_args()
    # So that the servers are ended too when a benchmark is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = Size(1, many=64, alone=5) if arguments.quick else Size(arguments.pairs)
    run(size, rival=not arguments.no_rival, patience=0.0 if arguments.quick else arguments.patience)


if __name__ == "__main__":
    main()
