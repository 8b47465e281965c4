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

KOPF = ("kopf.objects", "kopf.activities", "kopf._core.engines.activities")


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
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in (None, *KOPF)}
    before, root.handlers = root.handlers, []
    configure("INFO")
    try:
        yield
    finally:
        root.handlers = before
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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


def test_errors_of_kopf_are_warnings_because_it_tries_again(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.getLogger("kopf._core.reactor").error("Request attempt #1 failed")
        logging.getLogger("moorage_operator").error("ours stays an error")
    levels = [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()]
    assert levels == ["warning", "error"]


@pytest.mark.parametrize(
    ("modules", "level"),
    [
        (["kopf._core.reactor"], "warning"),
        (["kopf._core.reactor", "aiohttp.client"], "warning"),
        (["kopf._core.reactor", "moorage_operator.app"], "error"),
        (["moorage_operator.app"], "error"),
    ],
)
def test_what_asyncio_says_of_tasks_that_kopf_has_left_is_a_warning(
    capsys: pytest.CaptureFixture[str], modules: list[str], level: str
) -> None:
    with configured():
        try:
            raised_in(modules)
        except ValueError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
    assert json.loads(capsys.readouterr().err)["level"] == level


def raised_in(modules: list[str]) -> None:
    """A call through functions of these modules, of which the last one fails."""
    first, *rest = modules
    body = "rest and go(rest)\nif not rest: raise ValueError('failed')"
    exec(body, {"__name__": first, "rest": rest, "go": raised_in})  # noqa: S102 - a frame of a module that is not loaded


def test_a_critical_line_of_kopf_stays_critical(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.getLogger("kopf._core.reactor").critical("the end")
    assert json.loads(capsys.readouterr().err)["level"] == "critical"


@pytest.mark.parametrize("name", KOPF)
def test_kopf_is_quiet_about_each_event(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with configured():
        logging.getLogger(name).info("Handler 'pods' succeeded.")
        logging.getLogger("moorage_operator").info("ours is seen")
        logging.getLogger("moorage_operator").debug("but not everything")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["ours is seen"]
