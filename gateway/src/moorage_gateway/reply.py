"""What an exchange needs of whatever takes its answer."""

from collections.abc import Callable
from typing import Protocol

from moorage_common.http.message import Answer
from moorage_common.http.responder import Flow

Headers = tuple[tuple[bytes, bytes], ...]


class Reply(Protocol):
    """Where an answer goes: to a client (`Responder`), or to what makes another one of it."""

    @property
    def started(self) -> bool:
        """True once something has gone to the client: from then on no other pod can answer."""

    @property
    def takes_chunks(self) -> bool:
        """True where an answer without a length can be framed by chunks."""

    def send(self, answer: Answer) -> None:
        """Write a whole answer."""

    def start(self, status: int, content_type: bytes, *, flow: Flow, headers: Headers = ()) -> None:
        """Begin an answer that is written piece by piece."""

    def pass_head(  # noqa: PLR0913 - the parts of a head
        self,
        status: int,
        content_type: bytes,
        *,
        length: int | None,
        flow: Flow,
        headers: Headers = (),
        data: bytes = b"",
    ) -> Callable[[bytes], None]:
        """Begin an answer that is passed on as it is framed; gives what takes the rest of it."""

    def go_on(self, *, flow: Flow) -> None:
        """Let what has been begun go on from another source."""

    def passed(self, *, whole: bool) -> None:
        """End it."""

    def write(self, data: bytes) -> None:
        """Write a piece of what `start` has begun."""

    def finish(self) -> None:
        """End that as complete."""

    def break_off(self) -> None:
        """End an answer as not complete."""
