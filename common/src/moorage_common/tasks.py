"""What a model is for, and how many requests a replica then works on at once where nobody says so."""

from enum import StrEnum


class Task(StrEnum):
    """What a model is for."""

    GENERATE = "generate"
    EMBED = "embed"


def default_concurrency(task: Task, engine: str) -> int:
    """Give the requests that a replica works on at a time; of transformers one batch of embeddings is made of many."""
    return 256 if task is Task.EMBED and engine == "transformers" else 4
