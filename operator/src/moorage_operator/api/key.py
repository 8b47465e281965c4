"""How the operator names an InferenceModel everywhere inside: queue, store, log."""

from typing import NamedTuple


class Key(NamedTuple):
    """An InferenceModel's namespace and name."""

    namespace: str
    name: str
