"""What a source of files is to the download: a listing, a request for each file, and words for a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import Asked
from moorage_runtime.fetch.plan import Remote


@dataclass(frozen=True)
class Listing:
    """What is there. `version` names the state of the whole, such as a commit; empty where there is none."""

    files: Sequence[Remote]
    version: str = ""


class Origin(Protocol):
    """One source. Both network calls raise PassingFailure for what may pass, LoadFailure for what does not."""

    where: str
    """The source in words, without secrets."""

    def list(self) -> Listing:
        """Ask what is there."""

    def asked(self, remote: Remote) -> Asked:
        """Give the request for a file; made anew for each attempt, since signatures expire."""

    def refusal(self, status: int, headers: Mapping[str, str], name: str) -> LoadFailure:
        """Say what an answer that is no file means."""
