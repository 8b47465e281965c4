"""What a field of a status may say: `OneOf` values, a range, an amount, an account of preemptions. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class Expected(Protocol):
    """What is true; its text says it to people."""

    def allows(self, said: object) -> bool:
        """Whether a field that says `said` (None: it is absent) is true."""


@dataclass(frozen=True)
class OneOf:
    """One of several values; None stands for an absent field."""

    values: tuple[object, ...]

    def allows(self, said: object) -> bool:
        return said in self.values

    def __str__(self) -> str:
        return " or ".join("nothing" if value is None else _words(value) for value in self.values)


@dataclass(frozen=True)
class Such:
    """What `holds` says, which `words` describe."""

    words: str
    holds: Callable[[object], bool]

    def allows(self, said: object) -> bool:
        try:
            return self.holds(said)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return False  # not even of the right form

    def __str__(self) -> str:
        return self.words


def exactly(value: object) -> OneOf:
    """The one value."""
    return OneOf((value,))


def verdicts(*found: tuple[str, Iterable[str]]) -> OneOf:
    """A condition's status and reason: for each status the reasons that it may have."""
    return OneOf(tuple((status, reason) for status, reasons in found for reason in sorted(reasons)))


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
