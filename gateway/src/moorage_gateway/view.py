"""What the gateway sees of the cluster: models, their ready pods, and API keys; put into the table and the key list."""

import logging
from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import Any, Final

from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, RUNTIME_PORT_NAME
from moorage_common.tasks import Task, default_concurrency
from moorage_gateway.alias import Alias, Aliases, Share
from moorage_gateway.hold import State
from moorage_gateway.keys import KEY_LABEL, KeyInvalidError, Keys, read_key
from moorage_gateway.kube.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    INFERENCE_MODELS,
    MODEL_ALIASES,
    SECRETS,
    Resource,
)
from moorage_gateway.kube.watch_health import Watched
from moorage_gateway.prefix import LOAD_FACTOR_PERCENT, PREFIX_LENGTH, PrefixSettings
from moorage_gateway.routing import ModelKey, Table
from moorage_gateway.templates import Templates

log = logging.getLogger(__name__)

SERVED: Final = (INFERENCE_MODELS, MODEL_ALIASES, ENDPOINT_SLICES)
"""What is watched in each namespace that is served."""

REFUSED_SECONDS: Final = 10.0
"""After so long a refusal (403, 404) counts: keys are not taken any more, and readiness does not wait for a list.
Shorter ones come from an API server that starts, or from an upgrade that makes a RoleBinding anew."""
KEPT_SECONDS: Final = 60.0
"""For which requests go on to the pods that were seen in a namespace that cannot be watched any more. Their addresses
may become those of other pods, which must not get these requests."""

_NOT_ON_ITS_WAY: Final = frozenset({"Stopped", "Stopping", "Failed"})
"""Phases of a model for which waiting is of no use."""
_IN_VAIN: Final = frozenset({"NoSuchResource"})

Address = tuple[str, int]


def watched(
    namespaces: Iterable[str | None], key_namespace: str | None, templates: ModelKey | None = None
) -> list[Watched]:
    """What is watched: what is served, Secrets in the namespace of the keys alone, the ConfigMap of the templates."""
    found = [Watched(resource, namespace) for resource in SERVED for namespace in namespaces]
    if key_namespace:
        found.append(Watched(SECRETS, key_namespace))
    if templates is not None:
        found.append(Watched(CONFIG_MAPS, templates.namespace))
    return found


def selectors(templates: ModelKey | None = None) -> Mapping[Resource, Mapping[str, str]]:
    """Which objects of a kind are watched, as query parameters; all where there is none."""
    return {
        # A slice has the labels of its Service.
        ENDPOINT_SLICES: {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY},{MODEL_LABEL}"},
        SECRETS: {"labelSelector": KEY_LABEL},
        # The right to one object by its name is the right to watch that name only.
        CONFIG_MAPS: {"fieldSelector": f"metadata.name={templates.name}"} if templates is not None else {},
    }


class View:
    """Takes in what the watches see (`kube.watch.Sink`)."""

    def __init__(
        self,
        table: Table,
        keys: Keys,
        wanted: Iterable[Watched],
        *,
        aliases: Aliases,
        templates: Templates,
    ) -> None:
        """Keep all of these as the cluster is; `wanted` are the watches."""
        self._table = table
        self._keys = keys
        self._aliases = aliases
        self._templates = templates
        self._wanted = frozenset(wanted)
        self._unlisted = set(self._wanted)
        self._lost: set[Watched] = set()
        """What is refused, not just for a moment."""
        self._seen: dict[tuple[Resource, str], str] = {}
        """NAMESPACE/NAME of every object by its uid: what a list does not have any more has gone."""
        self._slices: dict[ModelKey, dict[str, list[Address]]] = {}
        self._model_of: dict[str, ModelKey] = {}

    @property
    def unlisted(self) -> set[Watched]:
        """What readiness waits for: neither listed once nor refused, so that a model may be there that is not seen."""
        return self._unlisted - self._lost

    @property
    def blind(self) -> bool:
        """Whether nothing at all can be watched."""
        return self._lost == self._wanted

    @property
    def complete(self) -> bool:
        """Whether all that can be listed has been listed once."""
        return not self.unlisted and not self.blind

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An object was listed (None), ADDED, MODIFIED or DELETED."""
        metadata = obj["metadata"]
        uid = metadata["uid"]
        if kind == "DELETED":
            self._gone(resource, uid)
            return
        self._seen[resource, uid] = f"{metadata['namespace']}/{metadata['name']}"
        if resource is INFERENCE_MODELS:
            self._model(obj)
        elif resource is ENDPOINT_SLICES:
            self._slice(obj)
        elif resource is MODEL_ALIASES:
            self._aliases.put(_alias(obj))
        elif resource is CONFIG_MAPS:
            self._templates.update(obj.get("data") or {})
        else:
            self._key(obj)

    def listed(self, one: Watched, found: Set[str]) -> None:
        """A list is complete: what is not in it is gone."""
        self._unlisted.discard(one)
        self._lost.discard(one)
        for uid in self._seen_of(one) - found:
            self._gone(one.resource, uid)
        if one.resource is SECRETS:
            self._keys.checked = True

    def refused(self, one: Watched, seconds: float) -> None:
        """A list is refused, for so long already: nobody tells us any more what is deleted."""
        if seconds < REFUSED_SECONDS:
            return
        self._lost.add(one)
        if one.resource is SECRETS:
            # A key may have been revoked since.
            self._keys.checked = False
        elif one.resource in SERVED and seconds >= KEPT_SECONDS:
            for uid in self._seen_of(one):
                self._gone(one.resource, uid, "the gateway cannot watch its namespace")

    def _seen_of(self, one: Watched) -> set[str]:
        """The uids of what a watch has shown."""
        resource, namespace = one
        return {
            uid
            for (kind, uid), name in self._seen.items()
            if kind is resource and (namespace is None or name.startswith(f"{namespace}/"))
        }

    def _gone(self, resource: Resource, uid: str, why: str = "it was deleted") -> None:
        name = self._seen.pop((resource, uid), None)
        if name is None:
            return
        # One of the same name may have been seen before this one was missed.
        made_again = name in (seen for (kind, _), seen in self._seen.items() if kind is resource)
        namespace, _, plain = name.partition("/")
        if resource is ENDPOINT_SLICES:
            self._drop_slice(uid)
        elif resource is SECRETS:
            self._keys.remove(uid)
        elif made_again:
            return
        elif resource is INFERENCE_MODELS:
            self._table.remove(ModelKey(namespace, plain), why)
        elif resource is MODEL_ALIASES:
            self._aliases.remove(ModelKey(namespace, plain))
        else:
            self._templates.update({})

    def _model(self, obj: Mapping[str, Any]) -> None:
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        key = ModelKey(metadata["namespace"], metadata["name"])
        served = spec.get("servedName") or key.name
        self._table.put(key, served, created=_created(metadata), state=_state(obj), prefix=_prefix(spec))
        self._table.move(key, self._addresses(key))

    def _slice(self, obj: Mapping[str, Any]) -> None:
        metadata = obj["metadata"]
        key = ModelKey(metadata["namespace"], str((metadata.get("labels") or {}).get(MODEL_LABEL, "")))
        if self._model_of.get(metadata["uid"], key) != key:
            self._drop_slice(metadata["uid"])
        self._model_of[metadata["uid"]] = key
        self._slices.setdefault(key, {})[metadata["uid"]] = _ready(obj)
        self._update(key)

    def _drop_slice(self, uid: str) -> None:
        if (key := self._model_of.pop(uid, None)) is not None:
            del self._slices[key][uid]
            if not self._slices[key]:
                del self._slices[key]
            self._update(key)

    def _update(self, key: ModelKey) -> None:
        self._table.move(key, self._addresses(key))

    def _addresses(self, key: ModelKey) -> list[Address]:
        return [address for addresses in self._slices.get(key, {}).values() for address in addresses]

    def _key(self, obj: Mapping[str, Any]) -> None:
        metadata = obj["metadata"]
        try:
            self._keys.put(metadata["uid"], read_key(obj))
        except KeyInvalidError as error:
            self._keys.remove(metadata["uid"])
            log.warning("an API key cannot be used", extra={"secret": metadata["name"], "why": str(error)})


def _created(metadata: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(metadata["creationTimestamp"]).timestamp())


def _alias(obj: Mapping[str, Any]) -> Alias:
    metadata, models = obj["metadata"], (obj.get("spec") or {}).get("models") or ()
    namespace = metadata["namespace"]
    shares = tuple(Share(ModelKey(namespace, entry["name"]), entry["weight"]) for entry in models)
    return Alias(ModelKey(namespace, metadata["name"]), shares, _created(metadata))


def _ready(obj: Mapping[str, Any]) -> list[Address]:
    """The addresses of a slice that take requests; one that does not say whether it is ready is."""
    ports = [port.get("port") for port in obj.get("ports") or () if port.get("name") == RUNTIME_PORT_NAME]
    return [
        (address, port)
        for endpoint in obj.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"][:1]
        for port in ports
        if port
    ]


def _state(obj: Mapping[str, Any]) -> State:
    """What the gateway goes by of a model's spec and status."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return State(
        waits=_waits(obj),
        why_not=_why_not(status),
        takes=_takes(spec),
        scaled=bool(spec.get("scaling")) and not spec.get("suspend"),
        sleeping=status.get("phase") == "Sleeping",
    )


def _waits(obj: Mapping[str, Any]) -> bool:
    """Whether a model is on its way, or wakes; not, if somebody has stopped it, or has to mend it first."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    stopped = spec.get("suspend") or (spec.get("replicas") == 0 and not spec.get("scaling"))
    if stopped or "deletionTimestamp" in metadata:
        return False
    if status.get("observedGeneration") != metadata.get("generation"):
        return True  # what the status says is of an earlier spec
    ready: Mapping[str, Any] = next((entry for entry in status.get("conditions") or () if entry["type"] == "Ready"), {})
    return status.get("phase") not in _NOT_ON_ITS_WAY and ready.get("reason") not in _IN_VAIN


def _takes(spec: Mapping[str, Any]) -> int:
    """Requests that a pod works on at a time."""
    try:
        task = Task(spec.get("task") or Task.GENERATE)
    except ValueError:
        return 0  # of a version to come
    return int(spec.get("maxConcurrency") or default_concurrency(task, str(spec.get("framework"))))


def _prefix(spec: Mapping[str, Any]) -> PrefixSettings | None:
    """How a model chooses pods by prefixes; None where it does not."""
    routing = spec.get("routing") or {}
    if routing.get("strategy") != "PrefixHash":
        return None
    return PrefixSettings(
        routing.get("prefixLength") or PREFIX_LENGTH, routing.get("loadFactorPercent") or LOAD_FACTOR_PERCENT
    )


def _why_not(status: Mapping[str, Any]) -> str:
    """Why a model does not answer: the resource and its queue position, or the reason and message of Ready."""
    if queue := status.get("queue"):
        return f"waiting for {queue.get('waitingFor')}, position {queue.get('position')} of {queue.get('of')}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] != "True":
            return f"{condition['reason']}: {condition['message']}"[:1000]
    return ""
