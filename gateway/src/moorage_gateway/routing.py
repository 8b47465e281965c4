"""Which models there are, and which one a request means. Pure: what is watched is put in, nothing is asked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from moorage_gateway.balance import Backends


class ModelKey(NamedTuple):
    """Namespace and name of an InferenceModel."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As clients write it: `namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(slots=True)
class Model:
    """One InferenceModel, as the gateway needs it."""

    key: ModelKey
    served_name: str
    created: int = 0
    """Seconds since 1970."""
    why_not: str = ""
    """Why it does not answer, in the words of its condition Ready; empty while it does."""
    backends: Backends = field(default_factory=Backends)
    name: str = field(init=False)
    """`namespace/name`."""

    def __post_init__(self) -> None:
        """Put the name together once: every request needs it."""
        self.name = str(self.key)


class Table:
    """All models, by what clients may call them: the served name, the name, or `namespace/name`."""

    def __init__(self) -> None:
        self._models: dict[ModelKey, Model] = {}
        self._backends: dict[ModelKey, Backends] = {}
        self._by_name: dict[str, list[Model]] = {}

    def __iter__(self) -> Iterator[Model]:
        """All models."""
        return iter(self._models.values())

    def get(self, key: ModelKey) -> Model | None:
        """The model of that key."""
        return self._models.get(key)

    def named(self, name: str) -> list[Model]:
        """The models that are called so; more than one where several namespaces have it."""
        return self._by_name.get(name, [])

    def backends(self, key: ModelKey) -> Backends:
        """The pods of a model, known or not yet: pods may be seen before their model."""
        return self._backends.setdefault(key, Backends())

    def put(self, key: ModelKey, served_name: str, *, created: int = 0, why_not: str = "") -> None:
        """A model was seen."""
        self._forget_names(key)
        model = Model(key, served_name, created, why_not, self.backends(key))
        self._models[key] = model
        for name in {served_name, key.name, str(key)}:
            self._by_name.setdefault(name, []).append(model)

    def remove(self, key: ModelKey) -> None:
        """A model has gone."""
        self._forget_names(key)
        self._models.pop(key, None)
        if backends := self._backends.pop(key, None):
            backends.update(())

    def _forget_names(self, key: ModelKey) -> None:
        known = self._models.get(key)
        if known is None:
            return
        for name in {known.served_name, key.name, str(key)}:
            left = [model for model in self._by_name[name] if model.key != key]
            if left:
                self._by_name[name] = left
            else:
                del self._by_name[name]
