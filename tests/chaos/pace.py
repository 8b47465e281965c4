"""How long and how many: the figures of the table of faults in full, and shortened for `make test`.

`make chaos` sets MOORAGE_CHAOS=full and runs the table's own times and counts. Otherwise waits are shortened by
SHORTENED and counts by FEWER; limits on the time to converge are never shortened.
"""

import os
from typing import Final

FULL: Final = os.environ.get("MOORAGE_CHAOS", "quick") == "full"
SHORTENED: Final = 100
FEWER: Final = 5

LIMIT: Final = 30.0
"""Seconds to converge after the fault is gone, unless a row says otherwise."""


def lasting(table_seconds: float, *, at_least: float = 0.0) -> float:
    """How long a fault or a watched quiet lasts that lasts `table_seconds` in the table.

    `at_least` is for a fault that would not be one if it were shorter.

    >>> FULL or lasting(600)
    6.0
    """
    return table_seconds if FULL else max(table_seconds / SHORTENED, at_least)


def many(table_count: int) -> int:
    """How many objects stand for the table's.

    >>> FULL or many(200)
    40
    """
    return table_count if FULL else max(2, table_count // FEWER)


QUIET: Final = lasting(60, at_least=1.5)
"""Seconds without a write after a scenario."""
