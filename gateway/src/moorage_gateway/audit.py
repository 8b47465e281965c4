"""Failed logins in the audit log, never with the credential; writes are audited where they are made (`manage`)."""

import logging
from collections.abc import Callable
from typing import Final

from moorage_gateway.gcra import spent, wait

log = logging.getLogger("moorage.audit")

LOGINS_A_MINUTE: Final = 300
"""Lines of failed logins; those over it are counted, and the next line has the count."""


class FailedLogins:
    """Writes them."""

    def __init__(self, clock: Callable[[], float], per_minute: int = LOGINS_A_MINUTE) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._limit = per_minute
        self._full_at = 0.0
        self._left_out = 0

    def tell(self, *, client: str, key: str | None, request_id: str, refused_early: bool, path: str = "") -> None:
        """A credential was not valid; `key` is the ID that it claimed, if it looks like one of ours.

        `refused_early` where it was one too many of the address or the key; `path`, if at the administrative port.
        """
        now = self._clock()
        if wait(self._full_at, now, 1, self._limit) > 0:
            self._left_out += 1
            return
        self._full_at = spent(self._full_at, now, 1, self._limit)
        left_out, self._left_out = self._left_out, 0
        fields: dict[str, object] = {
            "client": client,
            "kind": "key" if key is not None else "token",
            "request_id": request_id,
            "too_many": refused_early,
        }
        if path:
            fields["path"] = path
        if key:
            fields["key"] = key
        if left_out:
            fields["left_out"] = left_out
        log.warning("login failed", extra=fields)
