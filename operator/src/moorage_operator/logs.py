"""Writes the log as JSON, one object a line, to standard error."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message", …}`; what a call gives as `extra` stands beside."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks inside are escaped by JSON."""
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and _plain(value)}
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry = {**entry, **{key: value for key, value in extra.items() if key not in entry}}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # Not msgspec: a line must never be lost because of what is in it, be it half a character or some object.
        return json.dumps(entry, separators=(",", ":"), default=str, skipkeys=True)


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | tuple | dict)


def configure(level: str) -> None:
    """Sends every logger's records, libraries' too, to one handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_calm_kopf)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line for each event and handler says nothing that our own lines do not say.
    for name in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _calm_kopf(record: logging.LogRecord) -> bool:
    """kopf calls each failed attempt an error; it tries again, and liveness tells when that does not help.

    The same is true of what asyncio says about tasks that kopf has left behind when it failed.
    """
    if record.levelno == logging.ERROR and (record.name.startswith("kopf") or _left_by_kopf(record)):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _left_by_kopf(record: logging.LogRecord) -> bool:
    if record.name != "asyncio" or not record.exc_info:
        return False
    frames = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(record.exc_info[2])]
    return any(name.startswith("kopf.") for name in frames) and not any(n.startswith("moorage") for n in frames)
