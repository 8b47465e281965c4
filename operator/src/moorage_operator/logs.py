"""Writes the log as JSON, one object a line, to standard error."""

import json
import logging
import sys
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
    logging.basicConfig(level=level, handlers=[handler], force=True)
