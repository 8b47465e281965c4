"""Aliases: one name for several models of a namespace, each with its share of the requests (a canary). Pure.

An alias gives nobody a right: it leads a caller to those of its models that they may use, and is not there for whoever
may use none of them.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from moorage_gateway.routing import Model, ModelKey, Table

MayUse = Callable[[ModelKey], bool | None]
"""Whether a caller may use a model; None where that has to be asked first."""


class Share(NamedTuple):
    """A model of an alias, and its weight among the others'."""

    key: ModelKey
    weight: int


class Alias(NamedTuple):
    """One ModelAlias."""

    key: ModelKey
    shares: tuple[Share, ...]
    created: int = 0
    """Seconds since 1970."""


class Weighted(NamedTuple):
    """A model that an alias may lead a caller to."""

    model: Model
    weight: int


class Aliases:
    """All aliases, by what clients may call them: the name, or `namespace/name`."""

    def __init__(self, table: Table, chance: Callable[[], float] = random.random) -> None:
        """Lead to models of `table`; `chance` gives numbers from 0 to below 1."""
        self._table = table
        self._chance = chance
        self._aliases: dict[ModelKey, Alias] = {}
        self.by_name: dict[str, tuple[Alias, ...]] = {}
        """By what clients may call them; always the same dictionary, empty where there are no aliases."""

    def __iter__(self) -> Iterator[Alias]:
        """All of them."""
        return iter(self._aliases.values())

    def named(self, name: str) -> Sequence[Alias]:
        """The aliases that are called so; more than one where several namespaces have it."""
        return self.by_name.get(name, ())

    def put(self, alias: Alias) -> None:
        """An alias was seen."""
        self._aliases[alias.key] = alias
        self._name()

    def remove(self, key: ModelKey) -> None:
        """An alias has gone."""
        self._aliases.pop(key, None)
        self._name()

    def models(self, aliases: Iterable[Alias]) -> list[Model]:
        """Those of their models that exist."""
        found = (self._table.get(share.key) for alias in aliases for share in alias.shares)
        return [model for model in found if model is not None]

    def decided(self, aliases: Iterable[Alias], may_use: MayUse) -> bool:
        """Whether it is known of all their models if the caller may use them."""
        return all(may_use(model.key) is not None for model in self.models(aliases))

    def visible(self, aliases: Iterable[Alias], may_use: MayUse) -> list[tuple[Alias, list[Weighted]]]:
        """The aliases that lead the caller anywhere, each with the models that it leads to."""
        found = []
        for alias in aliases:
            among = [
                Weighted(model, share.weight)
                for share in alias.shares
                if share.weight > 0 and may_use(share.key) and (model := self._table.get(share.key)) is not None
            ]
            if among:
                found.append((alias, among))
        return found

    def choose(self, among: Sequence[Weighted]) -> Model:
        """One of these models by chance and weight: of those with a ready pod, else of those that can be waited for.

        All weights are above 0, and there is at least one.
        """
        ready = [entry for entry in among if len(entry.model.backends)]
        if not ready:
            ready = [entry for entry in among if entry.model.room is not None and entry.model.room.state.waits]
        ready = ready or list(among)
        left = self._chance() * sum(entry.weight for entry in ready)
        for entry in ready:
            left -= entry.weight
            if left < 0:
                return entry.model
        return ready[-1].model

    def _name(self) -> None:
        self.by_name.clear()
        for alias in self._aliases.values():
            for name in (alias.key.name, str(alias.key)):
                self.by_name[name] = (*self.by_name.get(name, ()), alias)
