"""What is shown: tables, and errors in one line."""

import re
from collections.abc import Sequence
from typing import Final

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


class CommandError(Exception):
    """A command that was not done; the text says why and what to do."""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, the first row on top, as kubectl shows them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def namespace_name(name: str) -> str:
    """The name, if a namespace can have it: another one could make another path of a request. CommandError."""
    if not _NAMESPACE.fullmatch(name):
        rule = 'must consist of lowercase letters, digits and "-", start and end with a letter or digit'
        raise CommandError(f'namespace "{name[:100]}": {rule}, at most 63 characters.')
    return name


def model_name(name: str) -> str:
    """The name, if a model or an alias can have it; CommandError."""
    if not _NAME.fullmatch(name):
        rule = 'must consist of lowercase letters, digits and "-", start with a letter, at most 40 characters.'
        raise CommandError(f'metadata.name "{name[:100]}": {rule}')
    return name
