"""The engine's own metrics, passed on beside the runtime's."""

import asyncio
from typing import Final

from moorage_common.http.client import Pool, UpstreamGone
from moorage_runtime.collected import Collected
from moorage_runtime.engines.base import Plan

PATIENCE: Final = 2.0
"""Seconds that a busy engine has to answer; a scrape without its series is better than none."""


async def engine_metrics(plan: Plan | None, pool: Pool | None) -> bytes:
    """Give the engine's metrics in Prometheus' text form; nothing where it has none or does not answer."""
    if plan is None or plan.metrics_path is None or pool is None:
        return b""
    answer = Collected()
    try:
        async with asyncio.timeout(PATIENCE):
            await pool.exchange(pool.request_bytes("GET", plan.metrics_path), answer)
    except (TimeoutError, UpstreamGone):
        return b""
    return chosen(answer.content, plan.metrics_prefix) if answer.status == 200 else b""


def chosen(text: bytes, prefix: bytes) -> bytes:
    """Keep the series whose names begin with a prefix: the rest are on the engine's process and HTTP server.

    >>> chosen(b"# TYPE vllm:a gauge\\nvllm:a 1\\nprocess_open_fds 3\\n", b"vllm:")
    b'# TYPE vllm:a gauge\\nvllm:a 1\\n'
    """
    starts = (prefix, b"# HELP " + prefix, b"# TYPE " + prefix)
    return b"".join(line for line in text.splitlines(keepends=True) if line.startswith(starts))
