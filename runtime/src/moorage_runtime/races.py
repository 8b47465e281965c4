"""Waiting for one of several things: what is wanted, or what makes it impossible."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from moorage_common.http.client import UpstreamGone
from moorage_runtime.process import Child, ChildEnded

T = TypeVar("T")


async def first(*works: Coroutine[Any, Any, T]) -> T:
    """Give the result of whichever ends first, or raise what it raises; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ended(child: Child) -> Any:
    """Raise how a child ended, once it has."""
    raise await child.ended()


async def ended_soon(child: Child, gone: UpstreamGone) -> ChildEnded:
    """Prefer the end of the process as the reason where it comes within a second."""
    try:
        return await asyncio.wait_for(child.ended(), 1.0)
    except TimeoutError:
        return ChildEnded(f"it broke off a first request: {gone}", killed=False)
