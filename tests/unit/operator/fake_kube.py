"""An API server of a few dictionaries: enough of its verbs for the operator's own code."""

import copy
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.client import NOTHING, Kube
from moorage_operator.cluster.errors import ApiError, ConflictError, InvalidError, NotFoundError
from tests.unit.operator.support import Object

Target = tuple[str, str]


class FakeKube(Kube):
    """Keeps objects by kind and name, records every write, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.objects: dict[Target, Object] = {}
        self.writes: list[Object] = []
        self.deleted: list[str] = []
        self.forced: list[bool] = []
        self.reads: list[Target] = []
        self.refusals: dict[tuple[str, str], Exception] = {}
        """By verb and kind: what is raised instead of an answer."""

        self._versions = itertools.count(100)

    def put(self, kind: str, obj: Object) -> Object:
        """Let an object exist; gives it as the server would."""
        self.objects[kind, obj["metadata"]["name"]] = {"kind": kind, **copy.deepcopy(obj)}
        return self.objects[kind, obj["metadata"]["name"]]

    def written(self) -> list[str]:
        """The kinds of what was written, `status` for the status of a model."""
        return ["status" if "status" in write else write["kind"] for write in self.writes]

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object, or NotFoundError."""
        self.reads.append((resource.kind, name))
        self._refuse("get", resource.kind)
        if resource.kind == "ReplicaSet" and ("Deployment", name.removesuffix("-abc")) in self.objects:
            return self._replica_set(name)
        if (resource.kind, name) not in self.objects:
            raise NotFoundError(404, "NotFound", f"{resource.name} {name!r} not found")
        return copy.deepcopy(self.objects[resource.kind, name])

    def _replica_set(self, name: str) -> Object:
        """What a Deployment's controller would have made: the owner of the pods of `support.live_pod`."""
        owner = self.objects["Deployment", name.removesuffix("-abc")]["metadata"]
        reference = {"kind": "Deployment", "name": owner["name"], "uid": owner["uid"], "controller": True}
        return {"metadata": {"name": name, "uid": "rs", "ownerReferences": [reference]}}

    async def pages(
        self, resource: Resource, namespace: str | None, selectors: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[Object]:
        """All objects of a kind, one a page."""
        self.reads.append((resource.kind, ""))
        self._refuse("list", resource.kind)
        version = {"resourceVersion": str(next(self._versions))}
        for (kind, _), obj in list(self.objects.items()):
            if kind == resource.kind:
                yield {"metadata": version, "items": [copy.deepcopy(obj)]}
        yield {"metadata": version, "items": []}

    async def apply(
        self,
        resource: Resource,
        manifest: Object,
        *,
        force: bool,
        subresource: str | None = None,
    ) -> Object:
        """Server-side apply: a conflict where the live object is another or older than the manifest says.

        Fields of others never conflict here, so an apply that does not say which object it means lands on any.
        """
        kind, name = _kind(resource, manifest), manifest["metadata"]["name"]
        self._refuse("apply", kind)
        live = self.objects.get((kind, name))
        uid, version = (manifest["metadata"].get(field) for field in ("uid", "resourceVersion"))
        if uid and (live is None or live["metadata"]["uid"] != uid):
            raise ConflictError(409, "Conflict", f"uid mismatch: the provided object specified uid {uid}")
        if version and live and live["metadata"]["resourceVersion"] != version:
            raise ConflictError(409, "Conflict", "the object has been modified; please apply to the latest version")
        self.writes.append(copy.deepcopy(manifest))
        self.forced.append(force)
        created: Object = {"metadata": {"uid": f"uid-of-{kind}-{name}", "generation": 1}}
        merged: Object = _merged(live or created, manifest)
        if subresource:
            merged[subresource] = copy.deepcopy(manifest[subresource])  # nobody else owns any of it
        # A test may have made the live object newer than anything that was written.
        newest = int(live["metadata"]["resourceVersion"]) if live else 0
        merged["metadata"]["resourceVersion"] = str(max(next(self._versions), newest + 1))
        return copy.deepcopy(self.put(kind, merged))

    async def create(self, resource: Resource, manifest: Object) -> Object:
        """A new object; a conflict where the name is taken."""
        kind, name = _kind(resource, manifest), manifest["metadata"]["name"]
        self._refuse("create", kind)
        if (kind, name) in self.objects:
            raise ConflictError(409, "AlreadyExists", f"{name} already exists")
        made = self._stored(manifest)
        self.objects[kind, name]["metadata"].setdefault("uid", f"uid-of-{name}")
        return made

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> Object:
        """Away with the object of that uid."""
        self._refuse("delete", resource.kind)
        live = self.objects.get((resource.kind, name))
        if live is None:
            raise NotFoundError(404, "NotFound", f"{name} not found")
        if live["metadata"]["uid"] != uid:
            raise ConflictError(409, "Conflict", f"uid mismatch: {uid}")
        self.deleted.append(name)
        return self.objects.pop((resource.kind, name))

    async def replace(self, resource: Resource, manifest: Object) -> Object:
        """The object anew; a conflict when it is not of the manifest's version any more."""
        kind, metadata = _kind(resource, manifest), manifest["metadata"]
        self._refuse("replace", kind)
        live = self.objects[kind, metadata["name"]]
        if live["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ConflictError(409, "Conflict", "the object has been modified")
        return self._stored(manifest)

    def _stored(self, manifest: Object) -> Object:
        self.writes.append(copy.deepcopy(manifest))
        stored = self.put(manifest["kind"], manifest)
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(stored)

    def _refuse(self, verb: str, kind: str) -> None:
        if refusal := self.refusals.get((verb, kind)):
            raise refusal


def invalid(message: str) -> ApiError:
    """What the server answers to content that it does not take."""
    return InvalidError(422, "Invalid", message)


def _kind(resource: Resource, manifest: Object) -> str:
    """What is written; the server refuses a manifest of another kind than the path's."""
    assert manifest["kind"] == resource.kind
    return str(resource.kind)


def _merged(live: Any, applied: Any) -> Any:
    if isinstance(live, dict) and isinstance(applied, dict):
        return {**live, **{key: _merged(live.get(key), value) for key, value in applied.items()}}
    return copy.deepcopy(applied)
