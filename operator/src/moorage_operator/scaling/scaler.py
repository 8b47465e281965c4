"""Keeps, for each model that the operator scales, how many replicas were decided; decides again on each change.

It outlives no process: a model that sleeps is known by its Deployment, and what else was is counted from now on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from moorage_operator.api.key import Key
from moorage_operator.api.v1alpha1 import InferenceModel
from moorage_operator.scaling.decision import Past, Rules, begin, decide, rules
from moorage_operator.scaling.usage import Usage
from moorage_operator.status.observe import DeploymentState


class Scale(NamedTuple):
    """How many replicas a model that the operator scales has to have."""

    replicas: int
    woken: bool
    """Whether a gateway would wake it, if it sleeps."""
    again: float | None = None
    """Seconds after which to look again although nothing may come."""

    @property
    def asleep(self) -> bool:
        """Whether it sleeps."""
        return self.replicas == 0


class News(NamedTuple):
    """A model to be looked at: at once, or in so many seconds."""

    key: Key
    delay: float = 0.0
    urgent: bool = False


@dataclass
class _Model:
    uid: str
    rules: Rules
    past: Past
    last: tuple[int, bool] | None = None
    """Replicas, and whether it would be woken, at the last reconcile."""

    loading: bool = False


class Scaler:
    """Decides for all models; `clock` is monotonic, in seconds."""

    def __init__(self, usage: Usage, clock: Callable[[], float]) -> None:
        self._usage = usage
        self._clock = clock
        self._models: dict[Key, _Model] = {}

    def scale(
        self, key: Key, model: InferenceModel, deployment: DeploymentState | None, *, loading: bool
    ) -> Scale | None:
        """The desired replicas, given the model's own Deployment; None where the spec has the number.

        Its idle time begins when nothing is `loading` any more: else one that loads for longer would never be used.
        """
        scaling = rules(model.spec)
        if scaling is None:
            self._models.pop(key, None)
            return None
        known = self._models.get(key)
        if known is None or known.uid != model.metadata.uid:
            past = begin(scaling, _found(deployment), self._clock())
            known = self._models[key] = _Model(model.metadata.uid, scaling, past)
        known.rules = scaling
        if loading or known.loading:
            known.past = replace(known.past, since=self._clock())
        known.loading = loading
        decision = decide(scaling, self._usage.use(key), known.past, self._clock())
        known.past = decision.past
        woken = self._usage.wakes(key)
        known.last = decision.replicas, woken
        return Scale(decision.replicas, woken, decision.again)

    def news(self, keys: Iterable[Key]) -> list[News]:
        """Which of these models are to be looked at, as their use has changed; the others need nothing."""
        found = []
        for key in keys:
            if (model := self._models.get(key)) is None:
                continue
            decision = decide(model.rules, self._usage.use(key), model.past, self._clock())
            if (decision.replicas, self._usage.wakes(key)) != model.last:
                found.append(News(key, urgent=decision.replicas > model.past.replicas))
                continue
            model.past = decision.past
            if decision.again is not None:
                found.append(News(key, decision.again))
        return found

    def keys(self) -> list[Key]:
        """The models that it decides for."""
        return list(self._models)

    def forget(self, key: Key) -> None:
        """A model has gone."""
        self._models.pop(key, None)
        self._usage.forget(key)


def _found(deployment: DeploymentState | None) -> int | None:
    """The replicas that there are; one that is at 0 without being asleep was stopped, and starts as a new one."""
    if deployment is None or (deployment.replicas == 0 and not deployment.asleep):
        return None
    return deployment.replicas
