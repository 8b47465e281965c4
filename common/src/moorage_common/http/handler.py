"""What a server asks of whoever answers its requests."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from moorage_common.http.message import Answer, Request
from moorage_common.http.responder import Responder


class Running(Protocol):
    """Work on a request that goes on after its handler has returned; an asyncio.Task is one."""

    def cancel(self) -> object:
        """Stop: the client has left. The callback is called after this, too."""

    def cancelled(self) -> bool:
        """Tell whether it was stopped."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object:
        """Call `callback` with this object at the end."""


Handler = Callable[[Request, Responder], Coroutine[Any, Any, None] | Running | None]
"""Answers a request; gives None where it has done so."""

Judge = Callable[[dict[bytes, bytes]], Answer | bool]
"""Looks at the headers of a request before a large body is taken: refuses it, or tells whether the client is known.

Bodies of clients that are not get a quarter of the room for bodies, so that strangers cannot fill it.
"""
