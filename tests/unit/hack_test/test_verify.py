"""`make verify`: all steps run, and what belongs to one machine is found in tracked files."""

import pytest

from hack import verify
from hack.verify import Step


def test_every_step_runs_and_the_failed_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    def step(name: str, wrong: str) -> Step:
        def check() -> str:
            ran.append(name)
            return wrong

        return Step(name, check)

    assert verify.run([step("one", "it is broken"), step("two", ""), step("three", "so is this")]) == 1
    assert ran == ["one", "two", "three"]
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "verify failed: one, three"
    assert "it is broken" in printed


def test_when_all_is_well_it_succeeds() -> None:
    assert verify.run([Step("one", lambda: "")]) == 0


@pytest.mark.parametrize(
    "line",
    [
        "https://py" + "pi.org/simple",
        "URIs: http://deb." + "debian.org/debian",
        "cache: /ro" + "ot/.cache",
        'path = "/wo' + 'rk/main"',
        "/ho" + "me/someone/x",
    ],
)
def test_what_belongs_to_one_machine_is_found(line: str) -> None:
    assert verify.foreign_names([("a", f"fine\n{line}")]) == [f"a:2: {line}"]


@pytest.mark.parametrize(
    "line", ["from PyPI", "docker.io/library/python", "the root/x of things", "overwork/x", "/home/me/go"]
)
def test_what_belongs_to_every_machine_is_not(line: str) -> None:
    assert verify.foreign_names([("a", line)]) == []


def test_a_command_that_fails_in_silence_is_still_a_failure() -> None:
    assert verify.program("false")() == "ended with 1"
    assert verify.program("true")() == ""
