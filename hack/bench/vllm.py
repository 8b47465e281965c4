"""The runtime against vLLM's own server, on the CPU: `python -m hack.bench.vllm`.

SmolLM2 in 16 bit, 8 places, prompts of some 70 tokens, 64 new tokens, greedy, streamed through /v1/completions; every
prompt is new, so that no side profits from a cache. The direct side is vLLM's own API server with the command line that
the runtime gives it. Both are there during the whole run, and only one of them works at a time.
"""

import argparse
import asyncio
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

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
from hack.bench._processes import Served, free_port, process_of, wait_for
from hack.bench._streams import load
from hack.engines.environments import python_of, variables
from hack.engines.models import model_folder
from moorage_runtime.engines.vllm import ENGINE, ChildConfig
from moorage_runtime.settings import Backend, Settings

NAME = "smollm2"
CONTEXT = 1024
PLACES = 8
NEW_TOKENS = 64
PROMPT_WORDS = 58
START_SECONDS = 600.0
REQUESTS = {1: 2, 8: 8}
WORDS = "the of and to in is that it was for on are as with his they at be this from have or by one had not but"


def bodies(number: int, seed: str) -> list[bytes]:
    """Write requests whose prompts nobody has seen before."""
    rng = random.Random(seed)  # noqa: S311 - prompts, not secrets
    prompts = (f"{rng.randrange(10**6)} " + " ".join(rng.choices(WORDS.split(), k=PROMPT_WORDS)) for _ in range(number))
    fields = {"model": NAME, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True, "ignore_eos": True}
    return [msgspec.json.encode({"prompt": prompt, **fields}) for prompt in prompts]


@contextmanager
def ours(model: Path, python: str) -> Iterator[Served]:
    """Run the runtime."""
    port = free_port()
    settings = {
        **variables(),
        "MODEL_BACKEND": "vllm",
        "MODEL_PATH": str(model),
        "MODEL_NAME": NAME,
        "MAX_INPUT_TOKENS": str(CONTEXT),
        "MAX_CONCURRENT_REQUESTS": str(PLACES),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "LOG_LEVEL": "ERROR",
    }
    with process_of([python, "-m", "moorage_runtime", "serve"], settings) as process:
        yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/health/ready", process, START_SECONDS))


@contextmanager
def direct(model: Path, python: str) -> Iterator[Served]:
    """Run vLLM's own server with nothing in front of it, and with what the runtime tells its engine."""
    port = free_port()
    plan = ENGINE.plan(
        Settings(
            model_backend=Backend.VLLM,
            model_path=model,
            model_name=NAME,
            max_input_tokens=CONTEXT,
            max_concurrent_requests=PLACES,
        )
    )
    config = msgspec.json.decode(plan.config, type=ChildConfig)
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(config.threads)} if config.threads else {}
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1", f"--port={port}"]
    with process_of([*command, *config.arguments], {**variables(), **ENGINE.environment, **threads}) as process:
        yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/health", process, START_SECONDS))


class Figures:
    """Everything measured, by server and concurrency."""

    def __init__(self, patience: float) -> None:
        """Begin without figures."""
        self.patience = patience
        self.busy = 0
        self.tokens: dict[tuple[str, int], Samples] = {}
        self.cpu: dict[tuple[str, int], Samples] = {}
        self.first: dict[str, Samples] = {}

    async def compare(self, servers: dict[str, Served], pairs: int) -> None:
        """Measure all servers at all concurrencies, in turn; every round gives all of them the same prompts."""
        for name, server in servers.items():
            await load(server.port, bodies(PLACES, name), PLACES)
        for concurrency in REQUESTS:
            sides = {n: partial(self._measure, n, servers[n], concurrency, count()) for n in servers}
            for name, samples in (await alternate(sides, pairs=pairs)).items():
                self.tokens[name, concurrency] = samples

    async def _measure(self, name: str, server: Served, concurrency: int, rounds: Iterator[int]) -> float:
        requests = bodies(REQUESTS[concurrency], f"{concurrency}/{next(rounds)}")
        self.busy += not await quiet(self.patience)
        before = cpu_seconds(server.pid, children=True)
        run = await load(server.port, requests, concurrency)
        # An event may carry several tokens where the server is behind; every request has the same number of them.
        tokens = NEW_TOKENS * len(requests)
        cpu = (cpu_seconds(server.pid, children=True) - before) * 1000 / tokens
        self.cpu.setdefault((name, concurrency), Samples(name)).values.append(cpu)
        if concurrency == 1:
            self.first.setdefault(name, Samples(name)).values.extend(outcome.first for outcome in run.outcomes)
        return tokens / run.seconds


def run(pairs: int, patience: float) -> None:
    """Measure everything and print it."""
    model, python = model_folder("smollm2-hf"), str(python_of("vllm-cpu"))
    notes = {"machine": machine()}
    figures = Figures(patience)
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(ours(model, python)),
            "direct": stack.enter_context(direct(model, python)),
        }
        asyncio.run(figures.compare(servers, pairs))
    print_table(
        ["server", "streams", "tok/s", "noise", "CPU ms/token"],
        [
            [name, c, f"{samples.median:.1f}", f"±{samples.spread:.0%}", f"{figures.cpu[name, c].median:.1f}"]
            for (name, c), samples in figures.tokens.items()
        ],
    )
    print_table(
        ["server", "first token, 1 stream, ms", "n"],
        [[name, f"{s.median * 1000:.1f}", len(s.values)] for name, s in figures.first.items()],
    )
    notes["cpu_per_token_vs_direct"] = ", ".join(
        f"c={c}: {ratio(figures.cpu['ours', c], figures.cpu['direct', c])}" for c in REQUESTS
    )
    if figures.busy:
        notes["busy"] = f"{figures.busy} measurements began while the machine was busy with something else"
    report(
        "vllm",
        {
            "tok_s_c8_vs_direct": ratio(figures.tokens["ours", 8], figures.tokens["direct", 8]),
            "ttft_c1_vs_direct": ratio(figures.first["ours"], figures.first["direct"]),
        },
        {"vllm-cpu": _version(python), "python": sys.version.split()[0]},
        notes,
    )


def _version(python: str) -> str | None:
    (found,) = Path(python).parents[1].glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    return found.name.removesuffix(".dist-info").partition("-")[2]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.vllm", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=DEFAULT_PAIRS, help="rounds of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round, and no waiting for a quiet machine")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet machine, each time")
    arguments = parser.parse_args()
    # So that the servers are ended too when a benchmark is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run(1 if arguments.quick else arguments.pairs, 0.0 if arguments.quick else arguments.patience)


if __name__ == "__main__":
    main()
