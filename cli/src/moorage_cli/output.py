"""What is shown: tables, and errors in one line."""

from collections.abc import Sequence


class CommandError(Exception):
    """A command that was not done; the text says why and what to do."""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, the first row on top, as kubectl shows them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
