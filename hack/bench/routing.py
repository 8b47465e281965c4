"""`python -m hack.bench.routing`: what a request costs in the gateway, by the way that its pod is found. No sockets.

Each side is `Front` from a whole request to the choice of a pod, in one process: credential, rights, model.
The ways alternate; the medians are in microseconds of CPU. A request of the gateway costs some 40 in all.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from hack.bench._harness import alternate_sync, machine, print_table, ratio, report, version_of
from moorage_common.http.message import Request
from moorage_common.http.responder import Responder
from moorage_gateway import exchange
from moorage_gateway.access import Access
from moorage_gateway.alias import Alias, Aliases, Share
from moorage_gateway.desk import Desk
from moorage_gateway.front import Front
from moorage_gateway.keys import ApiKey, Keys
from moorage_gateway.prefix import PrefixSettings
from moorage_gateway.routing import ModelKey, Table
from moorage_gateway.templates import Templates

PODS = 4
REQUESTS = 20_000
PAIRS = 7
SECRET = "s3cret"  # noqa: S105 - of nobody
DIGEST = bytes.fromhex("1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0")
LEAST, PREFIX = ModelKey("team-a", "least"), ModelKey("team-a", "prefix")
VALUES = Path(__file__).resolve().parents[2] / "charts" / "moorage" / "values.yaml"


def front() -> Front:
    """A gateway with a model of each kind, an alias of them, and the chart's templates."""
    table, keys, templates = Table(), Keys(lambda: 0.0), Templates()
    aliases = Aliases(table)
    keys.put("uid", ApiKey(id="bench", digest=DIGEST, everything=True))
    table.put(LEAST, "least")
    table.put(PREFIX, "prefix", prefix=PrefixSettings())
    for key in (LEAST, PREFIX):
        table.backends(key).update([(f"10.0.0.{number}", 8000) for number in range(PODS)])
    aliases.put(Alias(ModelKey("team-a", "both"), (Share(LEAST, 90), Share(ModelKey("team-a", "other"), 10))))
    templates.update(yaml.safe_load(VALUES.read_text(encoding="utf-8"))["gateway"]["templates"])
    # An API key is known without asking anybody.
    access = Access(keys, cast(Any, None), time.monotonic)
    return Front(table, access, Desk(time.monotonic), aliases=aliases, templates=templates)


def request(path: str, body: Mapping[str, object]) -> Request:
    """A whole request, as the server hands it out."""
    headers = {b"authorization": f"Bearer mrg_bench_{SECRET}".encode(), b"content-type": b"application/json"}
    return Request("POST", path, b"", headers, True, True, json.dumps(body).encode())


def chat(model: str, size: int = 900) -> Request:
    """A chat of about that many bytes."""
    messages = [{"role": "system", "content": "Be kind. " * 30}, {"role": "user", "content": "x" * (size - 350)}]
    return request("/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 64})


def sides() -> dict[str, Request]:
    """The requests that are compared."""
    generate = {"model_id": "least", "inputs": "x" * 600, "scenario": "qa", "parameters": {"max_new_tokens": 64}}
    return {
        "least in flight": chat("least"),
        "prefix hash": chat("prefix"),
        "alias": chat("both"),
        "generate": request("/v1/generate", generate),
        "least in flight, 200 KB": chat("least", 200_000),
        "prefix hash, 200 KB": chat("prefix", 200_000),
    }


async def measure() -> dict[str, float]:
    """Microseconds of CPU for each way."""

    def choose(this: exchange.Exchange) -> None:
        # All but sending: no pod is there.
        assert this._backends.pick(0.0) is not None

    exchange.Exchange.start = choose  # type: ignore[method-assign, assignment]  # in this process only
    handler = front()

    def side(asked: Request) -> float:
        times = REQUESTS if len(asked.body) < 10_000 else REQUESTS // 20
        responder = cast(Responder, None)  # nothing is answered
        began = time.process_time()
        for _ in range(times):
            handler(asked, responder)
        return (time.process_time() - began) / times * 1e6

    made: dict[str, Callable[[], float]] = {name: functools.partial(side, asked) for name, asked in sides().items()}
    found = alternate_sync(made, pairs=PAIRS)
    return {name: samples.median for name, samples in found.items()}


def main() -> None:
    """Measure and report."""
    found = asyncio.run(measure())
    print(f"{machine()}; {PODS} pods, medians of {PAIRS}")
    print_table(["way", "µs of CPU a request"], [[name, f"{value:.1f}"] for name, value in found.items()])
    least = found["least in flight"]
    values = {
        "least_us": round(least, 2),
        **{f"{name.split()[0]}_vs_least": ratio(found[name], least) for name in ("prefix hash", "alias", "generate")},
        "prefix_200k_vs_least": ratio(found["prefix hash, 200 KB"], found["least in flight, 200 KB"]),
    }
    report("routing", values, {"moorage": version_of("moorage-gateway"), "msgspec": version_of("msgspec")})


if __name__ == "__main__":
    main()
