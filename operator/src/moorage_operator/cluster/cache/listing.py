"""Takes in lists, page by page: unlike a watch, a list tells what is gone. kopf drops that."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from kubernetes.aio.dynamic import Resource

from moorage_operator.cluster.cache.scope import Watched

log = logging.getLogger(__name__)


class EventHandler(Protocol):
    """Takes in what lists and watches show."""

    def event(self, resource: Resource, kind: str | None, obj: dict[str, Any]) -> None:
        """An object was listed (None), ADDED, MODIFIED or DELETED."""

    def listed(self, resource: Resource, namespace: str | None, found: Mapping[str, str], version: int) -> None:
        """A list at `version` is complete; `found` has NAMESPACE/NAME of each uid. What is not in it is gone."""

    def lost(self, watched: Watched) -> None:
        """The API server has begun to refuse a list or watch."""

    def recovered(self, watched: Watched) -> None:
        """A watch goes on that was refused; what went meanwhile is not known."""


class Listing:
    """One list of `watched` in the making."""

    def __init__(self, watched: Watched, handler: EventHandler) -> None:
        self._watched, self._handler = watched, handler
        self._found: dict[str, str] = {}

    def page(self, page: Mapping[str, Any]) -> None:
        """Takes in the next page; with the last one, the list is complete."""
        resource, namespace = self._watched
        for obj in page.get("items") or ():
            metadata = obj["metadata"]
            self._found[metadata["uid"]] = f"{metadata.get('namespace', '')}/{metadata['name']}"
            try:
                self._handler.event(resource, None, obj)
            except Exception:
                # A bug in reading one object must not end kopf's list, and so the process, again and again.
                extra = {"kind": resource.kind, "object": self._found[metadata["uid"]]}
                log.exception("an object could not be taken in", extra=extra)
        if not page["metadata"].get("continue"):
            self._handler.listed(resource, namespace, self._found, int(page["metadata"]["resourceVersion"]))
