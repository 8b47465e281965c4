"""Reads why the API server lets no pod be made: a quota, a LimitRange, Pod Security, or another rule. Pure.

The cause is only in the message, which is that of the admission plugins (Kubernetes 1.36: plugin/pkg/admission/
limitranger, apiserver/pkg/admission/plugin/resourcequota). The message is kept, or rewritten with the remedy.
"""

import re
from collections.abc import Iterator
from typing import Final

from moorage_operator.api.conditions import Problem, Reason

_EXCEEDED: Final = "exceeded quota: "
_UNSPECIFIED: Final = re.compile(r"failed quota: [^\s:]+: must specify (.+)")
_AMOUNT: Final = r"([0-9][0-9A-Za-z.]*?)(?=[,.;\s\]]|$)"
_BOUND: Final = re.compile(
    rf"(minimum|maximum) ([-\w./]+) usage per (Container|Pod) is {_AMOUNT}"
    rf"(?:, but (request|limit) is {_AMOUNT}|\.?\s+No (request|limit) is specified)"
)
_RATIO: Final = re.compile(
    rf"([-\w./]+) max limit to request ratio per (Container|Pod) is {_AMOUNT}, but "
    r"(?:provided ratio is ([0-9.]+)|no (?:request|limit) is specified)"
)
_DEFAULT_LIMIT: Final = re.compile(rf'Invalid value: "([^"]+)": must be less than or equal to cpu limit of {_AMOUNT}')
_POD_SECURITY: Final = "violates PodSecurity "

_LIMITS: Final = {"cpu": "spec.resources.cpuLimit", "memory": "spec.resources.memory"}
_REQUESTS: Final = {"cpu": "spec.resources.cpu", "memory": "spec.resources.memory"}
_CHART: Final = "in the values of Moorage's chart"
_REMEDIES: Final = (
    (
        re.compile(r'RuntimeClass "[^"]*" not found'),
        f"create the RuntimeClass, or change runtime.runtimeClassNames {_CHART}",
    ),
    (
        re.compile(r"no PriorityClass with name \S+ was found"),
        f"create the PriorityClass, or set priorityClasses.create=true {_CHART}",
    ),
    (
        re.compile(r"security context constraint|\b(runAsUser|runAsGroup|fsGroup|supplementalGroups)\b"),
        "where the cluster assigns users and groups, set global.compatibility.openshift.adaptSecurityContext=force "
        + _CHART,
    ),
)
"""What to do about those that a setting of ours can end; the words are of admission plugins, of OpenShift, and those
that a policy cannot avoid."""
_NO_FIELD: Final = "Moorage has no field for it, so give the namespace a LimitRange with a default, or change the rule"


def over_quota(message: str) -> bool:
    """Whether pods are refused because of what others of the namespace, such as old pods, have already."""
    return _EXCEEDED in message


def refused(message: str) -> Problem:
    """Why the API server lets no pod be made, with what to change where a field of the spec is the remedy."""
    if over_quota(message):
        return Problem(Reason.QUOTA_EXCEEDED, message)
    if found := _UNSPECIFIED.search(message):
        return Problem(Reason.QUOTA_EXCEEDED, f"{message}; {_to_specify(found[1])}")
    if _POD_SECURITY in message:
        return Problem(Reason.POD_SECURITY_DENIED, message)
    # Each container may break the same rule in the same words.
    if violations := "; ".join(dict.fromkeys(_broken_limits(message))):
        return Problem(Reason.LIMIT_RANGE_VIOLATED, f"{violations[0].upper()}{violations[1:]}")
    remedy = next((remedy for words, remedy in _REMEDIES if words.search(message)), None)
    return Problem(Reason.PODS_REFUSED, f"{message}; {remedy}" if remedy else message)


def _to_specify(what: str) -> str:
    names = re.findall(r"([-\w./]+) for:", what)
    fields = [(_LIMITS if kind == "limits" else _REQUESTS).get(name, "") for kind, _, name in map(_parts, names)]
    known = sorted(set(filter(None, fields)))
    remedy = [f"set {' and '.join(known)}"] if known else []
    return "; ".join([*remedy, *([_NO_FIELD] if "" in fields else [])])


def _parts(name: str) -> tuple[str, str, str]:
    return name.partition(".") if name.startswith(("limits.", "requests.")) else ("requests", ".", name)


def _broken_limits(message: str) -> Iterator[str]:
    for bound, resource, whole, amount, has_kind, has, lacks_kind in _BOUND.findall(message):
        rule = f"a LimitRange requires {_LEAST_OR_MOST[bound]} {amount} of {resource} for each {whole.lower()}"
        kind = has_kind or lacks_kind
        field = (_REQUESTS if kind == "request" else _LIMITS).get(resource, "")
        verb = "set" if lacks_kind else "raise" if bound == "minimum" else "lower"
        yield f"{rule}, but {f'the {kind} is {has}' if has else f'there is no {kind}'}: {_remedy(verb, field)}"
    for resource, whole, most, has in _RATIO.findall(message):
        actual = f"it is {float(has):g} times" if has else "there is none"
        limit, request = _LIMITS.get(resource, ""), _REQUESTS.get(resource, "")
        change = _remedy("set" if not has else "lower", f"{limit}, or raise {request}" if limit and has else limit)
        yield (
            f"a LimitRange requires a limit of {resource} of at most {most} times the request for each "
            f"{whole.lower()}, but {actual}: {change}"
        )
    for request, limit in _DEFAULT_LIMIT.findall(message):
        yield (
            f"a LimitRange sets a limit of {limit} CPUs, which is less than the request of {request}: "
            "lower spec.resources.cpu, or set spec.resources.cpuLimit"
        )


_LEAST_OR_MOST: Final = {"minimum": "at least", "maximum": "at most"}


def _remedy(verb: str, field: str) -> str:
    return f"{verb} {field}" if field else _NO_FIELD
