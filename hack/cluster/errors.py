"""What can go wrong in hack.cluster, as classes; the CLI prints the message and the hint, callers catch the class."""

from __future__ import annotations


class ClusterError(Exception):
    """Something that the person at the keyboard can act upon; `hint` says how."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class MissingPrerequisitesError(ClusterError):
    """The machine lacks packages or rights that the wanted cluster needs; nothing was started."""


class BuildError(ClusterError):
    """A binary could not be built from its Go module."""


class StartError(ClusterError):
    """A component ended or did not become ready while the cluster was starting."""


class ApiError(ClusterError):
    """The API server answered with an error status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class LeftoverError(ClusterError):
    """`down` ended, and something of the cluster is still on the machine."""
