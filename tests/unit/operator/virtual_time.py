"""Runs a coroutine in a loop whose clock jumps to the next timer: an hour of waiting takes no time.

Where nothing is left that could ever happen, the loop raises instead of hanging: a lost wake-up is a failure at once.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class NothingLeftError(AssertionError):
    """Everything waits, and there is no timer that could end it."""


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; a wait without an end is an error."""
        if timeout is None:
            raise NothingLeftError("everything waits for ever")
        self.now += timeout
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """The time, which is the sum of what was waited."""
        return self._clock.now


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes a test function of a coroutine function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Lets every task get as far as it can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
