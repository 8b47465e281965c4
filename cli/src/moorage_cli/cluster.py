"""The API server, through the official client: the kinds that the command line works with, and refusals in words."""

import json
from collections.abc import Iterator
from typing import Any, Final

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient, Resource
from kubernetes.dynamic.exceptions import ForbiddenError, NotFoundError
from urllib3.exceptions import HTTPError

from moorage_cli.output import CommandError
from moorage_common.labels import API_GROUP

NAME: Final = "kubectl-moorage"
"""Who owns the fields that were applied."""

API_VERSION: Final = f"{API_GROUP}/v1alpha1"
AS_SENT: Final[dict[str, Any]] = {"serializer": lambda _, answer: answer, "_request_timeout": 60}
"""Options of every call: the answer is plain JSON."""

_PAGE: Final = 500


class Cluster:
    """The kinds; each has the verbs of the client's `Resource`."""

    def __init__(self, client: ApiClient) -> None:
        client.user_agent = NAME
        # The kinds are known. The discovery would keep a file in /tmp under a name that others can guess.
        dynamic = DynamicClient(client, discoverer=lambda *_: None)
        ours = {"prefix": "apis", "group": API_GROUP, "api_version": "v1alpha1", "namespaced": True, "client": dynamic}
        core = {"prefix": "api", "api_version": "v1", "client": dynamic}
        self.models = Resource(kind="InferenceModel", name="inferencemodels", **ours)
        self.aliases = Resource(kind="ModelAlias", name="modelaliases", **ours)
        self.secrets = Resource(kind="Secret", name="secrets", namespaced=True, **core)
        self._namespaces = Resource(kind="Namespace", name="namespaces", **core)

    def items(self, kind: Resource, namespace: str | None, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, with None of all namespaces; CommandError for a namespace that does not exist."""
        found = list(_pages(kind, namespace=namespace, label_selector=selector or None))
        if namespace is not None and not found:
            try:  # a list of a namespace that does not exist is empty, and no error
                self._namespaces.get(name=namespace, **AS_SENT)
            except NotFoundError as error:
                raise CommandError(f'namespace "{namespace}" not found: choose another one with -n') from error
            except ForbiddenError:
                pass  # it takes a right that those who may list its objects need not have
        return found


def _pages(kind: Resource, **which: Any) -> Iterator[dict[str, Any]]:
    rest = None
    while rest != "":
        page = kind.get(limit=_PAGE, _continue=rest, **which, **AS_SENT)
        yield from page["items"]
        rest = page["metadata"].get("continue", "")


def in_words(error: ApiException | HTTPError) -> str:
    """Why the API server refused, or cannot be reached: its own message, and never headers or bodies."""
    if isinstance(error, HTTPError):
        return f"the API server cannot be reached: {error}"
    if not error.status:  # TLS
        return f"the API server cannot be reached: {' '.join(str(error.reason).split())}"
    if error.status == 401:
        return "the API server does not accept the credentials (401 Unauthorized): log in, or choose another context"
    try:
        return str(json.loads(error.body or "")["message"])
    except (KeyError, TypeError, ValueError):
        absent = f": does it have the CustomResourceDefinitions of {API_VERSION}?" if error.status == 404 else ""
        return f"the API server answered {error.status} {error.reason}{absent}"
