"""What a model is for, and how many requests a replica then works on at once where nobody says so."""

from enum import StrEnum
from typing import Final

WAITING_PER_RUNNING: Final = 4
"""Requests that may wait for a place on a replica, for each that it works on; more are refused (429)."""


class Task(StrEnum):
    """What a model is for."""

    GENERATE = "generate"
    EMBED = "embed"


def default_concurrency(task: Task, engine: str) -> int:
    """Give the requests that a replica works on at a time; of transformers one batch of embeddings is made of many."""
    return 256 if task is Task.EMBED and engine == "transformers" else 4
