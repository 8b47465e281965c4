"""The log: one JSON object a line, whatever is logged."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage_operator.logs import JsonFormatter, configure


def formatted(message: str, *args: object, **extra: Any) -> dict[str, Any]:
    """A warning as it is written; that it is one line is part of every test."""
    record = logging.getLogger("moorage_operator.test").makeRecord(
        "moorage_operator.test", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry: dict[str, Any] = json.loads(line)
    return entry


@contextmanager
def configured() -> Iterator[None]:
    """The logging of the operator; afterwards that of the test run, whose handlers must not be closed."""
    root = logging.getLogger()
    level = root.level
    before, root.handlers = root.handlers, []
    configure("INFO")
    try:
        yield
    finally:
        root.handlers = before
        root.setLevel(level)


def test_a_line_tells_time_level_logger_and_message() -> None:
    entry = formatted("hello %s", "world")
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "moorage_operator.test", "hello world")
    assert entry["time"].endswith("+00:00")
    assert set(entry) == {"time", "level", "logger", "message"}


def test_extra_fields_stand_beside() -> None:
    entry = formatted("status", model="team-a/tiny", seconds=1.5, ok=True, nothing=None, names=["a"])
    assert (entry["model"], entry["seconds"], entry["ok"], entry["nothing"]) == ("team-a/tiny", 1.5, True, None)
    assert entry["names"] == ["a"]


def test_line_breaks_are_escaped_so_that_nobody_can_forge_a_line() -> None:
    forged = 'x\n{"level":"error","message":"forged"}\r\u2028'
    assert formatted(forged)["message"] == forged
    assert formatted("x", model=forged)["model"] == forged


def test_an_exception_is_on_the_same_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: first\nsecond" in json.loads(line)["exception"]


def test_no_line_is_lost_because_of_what_is_in_it() -> None:
    entry = formatted("half \ud800", connection=object(), settings={"paths": [Path("/x")], ("a", "b"): 1})
    assert "connection" not in entry
    assert entry["settings"] == {"paths": ["/x"]}
    assert entry["message"] == "half \ud800"


def test_extra_fields_do_not_replace_those_of_the_record() -> None:
    entry = formatted("x", level="of the caller", time="of the caller", logger="of the caller")
    assert (entry["level"], entry["logger"]) == ("warning", "moorage_operator.test")
    assert entry["time"] != "of the caller"


def test_the_configured_level_holds_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.getLogger("some.library").info("seen")
        logging.getLogger("moorage_operator").debug("but not everything")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["seen"]
