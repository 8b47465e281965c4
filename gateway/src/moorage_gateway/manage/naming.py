"""Which model an address means: `namespace/name`, or a name alone where only one model that the caller sees has it."""

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request

from moorage_gateway.kube.errors import ForbiddenError
from moorage_gateway.kube.resources import INFERENCE_MODELS, named
from moorage_gateway.manage.callers import Asking, Caller
from moorage_gateway.manage.problems import Problem


class Target(NamedTuple):
    """The model that an address means; it may not be there."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As it stands in addresses."""
        return f"{self.namespace}/{self.name}"


async def target_of(request: Request, caller: Asking) -> Target:
    """The model that the path of `request` names; Problem where its short name is nobody's, or several models'."""
    name, namespace = named(request.path_params["name"]), request.path_params.get("namespace")
    if namespace is None:
        return await _found(caller, name)
    return Target(caller.cluster.served(named(namespace)), name)


Targeted = Annotated[Target, Depends(target_of)]


async def _found(caller: Caller, name: str) -> Target:
    found: list[dict[str, Any]] = []
    refused: list[ForbiddenError] = []
    for namespace in caller.cluster.namespaces:
        try:
            async for page in caller.kube.pages(
                INFERENCE_MODELS, namespace, {"fieldSelector": f"metadata.name={name}"}
            ):
                found += page["items"]
        except ForbiddenError as error:
            refused.append(error)
    if not found and len(refused) == len(caller.cluster.namespaces):
        text = f"You may not look for {name!r} in all namespaces; say its namespace: NAMESPACE/{name}."
        raise Problem(403, text, "forbidden")
    if not found:
        raise Problem(404, f"There is no model {name!r} that you may see.", "not_found")
    targets = sorted(Target(model["metadata"]["namespace"], name) for model in found)
    if len(targets) > 1:
        names = ", ".join(map(str, targets[:10]))
        raise Problem(409, f"Several models are called {name!r}: say which of {names}.", "ambiguous")
    return targets[0]
