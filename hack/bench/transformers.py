"""The runtime with transformers against generate(): `python -m hack.bench.transformers`.

SmolLM2-135M in 16 bits. Eight requests at once through the runtime's HTTP, streamed, against generate() called for one
after the other; and requests of mixed lengths against static left-padded batches of eight, where a batch lasts as long
as its longest answer. Tokens that were asked for count, greedy, over the time of all. Where the runtime computes in
float32 because the CPU has nothing for 16 bits, the static batches do so too, which is three times as fast for them;
one by one generate() is faster in 16 bits, and stays there.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import msgspec
import uvloop

from hack.bench._harness import DEFAULT_PAIRS, Samples, alternate, machine, print_table, quiet, ratio, report
from hack.bench._streams import load
from hack.engines import environments
from hack.engines.models import model_folder
from tests.integration.runtime.conftest import runtime_process

MODEL = "smollm2-hf"
AT_ONCE = 8
RIVAL = Path(__file__).with_name("_transformers_rival.py")


@dataclass(frozen=True)
class Tasks:
    """Prompts as token numbers, and how many tokens each is to be answered with."""

    prompts: list[list[int]]
    limits: list[int]

    @classmethod
    def alike(cls, seed: str, tokens: int) -> "Tasks":
        """Eight of one length."""
        return cls([_prompt(random.Random(f"{seed}/{n}"), 64) for n in range(AT_ONCE)], [tokens] * AT_ONCE)  # noqa: S311

    @classmethod
    def mixed(cls, seed: str, tokens: int) -> "Tasks":
        """Two batches of eight of which prompts and answers are short and long."""
        rng = random.Random(seed)  # noqa: S311 - prompts, not secrets
        lengths = [(rng.randint(8, 128), rng.randint(max(1, tokens // 4), tokens * 2)) for _ in range(2 * AT_ONCE)]
        return cls([_prompt(rng, length) for length, _ in lengths], [limit for _, limit in lengths])


class Rival:
    """generate() in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Ask `process`, which is loaded."""
        self._process = process

    def seconds(self, way: str, dtype: str, tasks: Tasks) -> float:
        """Give how long it takes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for begin in range(0, len(tasks.prompts), AT_ONCE):
            batch = slice(begin, begin + AT_ONCE)
            task = {"way": way, "dtype": dtype, "prompts": tasks.prompts[batch], "limits": tasks.limits[batch]}
            self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return sum(float(self._process.stdout.readline()) for _ in range(0, len(tasks.prompts), AT_ONCE))


@contextmanager
def rival(model: Path, threads: int) -> Iterator[Rival]:
    """Start generate()."""
    # -P: beside it is this module, which has the name of the library.
    command = [str(environments.python_of("transformers")), "-P", str(RIVAL), str(model), str(threads)]
    settings = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=settings
    ) as process:
        try:
            yield Rival(process)
        finally:
            process.kill()


@contextmanager
def ours(model: Path, threads: int) -> Iterator[tuple[int, str]]:
    """Start the runtime; give its port and the type of numbers it computes with."""
    settings = {
        "MODEL_BACKEND": "transformers",
        "MODEL_PATH": str(model),
        "MODEL_NAME": MODEL,
        "MAX_INPUT_TOKENS": "512",
        "MAX_CONCURRENT_REQUESTS": str(AT_ONCE),
        "TORCH_NUM_THREADS": str(threads),
        "LOG_LEVEL": "INFO",
        **environments.variables(),
    }
    python = str(environments.python_of("transformers"))
    with tempfile.TemporaryDirectory() as folder, runtime_process(Path(folder), python=python, **settings) as runtime:
        runtime.wait_ready(300)
        yield runtime.port, runtime.health()["facts"]["dtype"]


def _prompt(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(1000, 40_000) for _ in range(length)]


async def _ours(port: int, patience: float, tasks: Iterator[Tasks]) -> float:
    todo = next(tasks)
    await quiet(patience)
    bodies = [
        msgspec.json.encode(
            {
                "model": MODEL,
                "prompt": prompt,
                "max_tokens": limit,
                "temperature": 0,
                "stream": True,
                "ignore_eos": True,
            }
        )
        for prompt, limit in zip(todo.prompts, todo.limits, strict=True)
    ]
    # Which tokens make an event of their own is the tokenizer's business: what was asked for is what is counted.
    return sum(todo.limits) / (await load(port, bodies, AT_ONCE)).seconds


async def _theirs(ask: Callable[[Tasks], float], patience: float, tasks: Iterator[Tasks]) -> float:
    todo = next(tasks)
    await quiet(patience)
    return sum(todo.limits) / ask(todo)


async def compare(port: int, dtype: str, other: Rival, options: argparse.Namespace) -> dict[str, dict[str, Samples]]:
    """Measure both comparisons; in each round both sides get the same prompts."""
    made = {"alike": Tasks.alike, "mixed": Tasks.mixed}
    found = {}
    for kind, way, theirs in (("alike", "sequential", "auto"), ("mixed", "static", dtype)):
        ask = partial(other.seconds, way, theirs)
        ask(made[kind]("warm", 2))
        tasks = [(made[kind](f"{kind}/{n}", options.tokens) for n in count()) for _ in range(2)]
        sides = {
            "ours": partial(_ours, port, options.patience, tasks[0]),
            way: partial(_theirs, ask, options.patience, tasks[1]),
        }
        found[kind] = await alternate(sides, pairs=options.pairs)
        print(", ".join(f"{kind}: {name} {s.median:.1f} tok/s" for name, s in found[kind].items()), file=sys.stderr)
    return found


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    model = model_folder(MODEL)
    with ExitStack() as stack:
        port, dtype = stack.enter_context(ours(model, options.threads))
        other = stack.enter_context(rival(model, options.threads))
        found = uvloop.run(compare(port, dtype, other, options))
    rows = [
        [kind, name, f"{samples.median:.1f}", f"±{samples.spread:.0%}"]
        for kind, sides in found.items()
        for name, samples in sides.items()
    ]
    print_table(["requests", "side", "tok/s", "noise"], rows)
    report(
        "transformers",
        {
            "tok_s_c8_vs_sequential": ratio(found["alike"]["ours"], found["alike"]["sequential"]),
            "tok_s_mixed_vs_static": ratio(found["mixed"]["ours"], found["mixed"]["static"]),
        },
        versions(),
        {"machine": machine(), "threads": str(options.threads), "pairs": str(options.pairs), "dtype": dtype},
    )


def versions() -> dict[str, str | None]:
    """Give the versions in the environment."""
    code = "import importlib.metadata as m; print(m.version('torch'), m.version('transformers'))"
    python = str(environments.python_of("transformers"))
    torch, transformers = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return {"torch": torch, "transformers": transformers, "python": sys.version.split()[0]}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.transformers", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="rounds of each measurement")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads that compute")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet machine, each time")
    parser.add_argument("--quick", action="store_true", help="one round of short answers, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.tokens, options.patience = 1, 12, 0.0
    # So that the servers are ended too when a benchmark is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(options)


if __name__ == "__main__":
    main()
