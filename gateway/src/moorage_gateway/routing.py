"""Which models there are, and which one a request means. Pure: what is watched is put in, nothing is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from moorage_common.tasks import WAITING_PER_RUNNING
from moorage_gateway.balance import Backends
from moorage_gateway.hold import Lobby, Room, State
from moorage_gateway.prefix import PrefixPods, PrefixSettings

UNKNOWN: Final = State()


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
    room: Room | None = None
    """Where requests wait while no pod is ready; None refuses them."""
    prefixes: PrefixPods | None = None
    """Chooses the pod by the prefix of a request; None chooses the one with the fewest in flight."""
    most_per_pod: int = 0
    """Requests that a pod takes at a time, working or waiting; 0 is any number."""
    sleeping: bool = False
    """Whether it has no pods because nobody has used it."""
    name: str = field(init=False)
    """`namespace/name`."""

    def __post_init__(self) -> None:
        """Put the name together once: every request needs it."""
        self.name = str(self.key)

    @property
    def full(self) -> bool:
        """Whether its ready pods have as many requests as they take; not, where there are none."""
        if not self.most_per_pod:
            return False
        most = self.most_per_pod * len(self.backends)
        return 0 < most <= (self.room.in_flight if self.room is not None else self.backends.in_flight)


class Table:
    """All models, by what clients may call them: the served name, the name, or `namespace/name`."""

    def __init__(self, lobby: Lobby | None = None) -> None:
        self._lobby = lobby
        self._rooms: dict[ModelKey, Room] = {}
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

    def put(
        self,
        key: ModelKey,
        served_name: str,
        *,
        created: int = 0,
        state: State = UNKNOWN,
        prefix: PrefixSettings | None = None,
    ) -> None:
        """A model was seen; `prefix` where it is to choose pods by prefixes."""
        known = self._models.get(key)
        self._forget_names(key)
        backends = self.backends(key)
        room = self._rooms.get(key)
        if room is None and self._lobby is not None:
            room = self._rooms[key] = Room(str(key), backends, self._lobby)
        prefixes = known.prefixes if known is not None else None
        if prefix is None:
            prefixes = None
        elif prefixes is None or prefixes.settings != prefix:
            prefixes = PrefixPods(backends, prefix)
        most_per_pod = state.takes * (1 + WAITING_PER_RUNNING)
        model = Model(key, served_name, created, state.why_not, backends, room, prefixes, most_per_pod, state.sleeping)
        self._models[key] = model
        for name in {served_name, key.name, str(key)}:
            self._by_name.setdefault(name, []).append(model)
        if room is not None:
            room.set(state)

    def move(self, key: ModelKey, addresses: Iterable[tuple[str, int]]) -> None:
        """These are the ready pods of a model now; who waits for one goes."""
        if (model := self._models.get(key)) is not None:
            model.backends.update(addresses)
            if model.room is not None:
                model.room.pump()

    def remove(self, key: ModelKey, why: str = "it was deleted") -> None:
        """A model has gone; `why` is told those who wait for it."""
        self._forget_names(key)
        self._models.pop(key, None)
        if backends := self._backends.pop(key, None):
            backends.update(())
        if (room := self._rooms.pop(key, None)) is not None:
            room.set(State(why_not=why))

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
