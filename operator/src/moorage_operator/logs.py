"""Writes the log as JSON, one object a line, to standard error."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_TALKATIVE: Final = ("aiohttp.access", "kopf")
"""Loggers that tell each request or event, which is of no use to those who run us."""

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


def configure(level: str, *filters: logging.Filter) -> None:
    """Sends every logger's records, libraries' too, to one handler, through the filters."""
    handler = logging.StreamHandler(sys.stderr)
    for chosen in filters:
        handler.addFilter(chosen)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
