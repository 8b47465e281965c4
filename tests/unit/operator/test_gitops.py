"""The health checks of docs/gitops.md, by real interpreters of CEL and Lua, and what kstatus makes of a status."""

import re
from pathlib import Path
from typing import Any

import cel
import lupa.lua51  # type: ignore[import-untyped]
import pytest
import yaml

from moorage_operator.api.conditions import Problem, Reason
from moorage_operator.status import status
from moorage_operator.status.observe import Observation
from tests.support.kstatus import kstatus
from tests.unit.operator.situations import LOADED, NO_GPU, STOPPED, UNREADY, deployment, failing, placed, pod, ready
from tests.unit.operator.support import live_model, model

ROOT = Path(__file__).resolve().parents[3]
FLUX, ARGO = (
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/gitops.md").read_text(), re.DOTALL)
)
NOW = "2026-01-02T03:04:05Z"
OLD = ready("old", created="2026-01-01T00:00:00Z")
ROLLING = deployment(1, current_replicas=2, updated_replicas=1, available_replicas=1)
NO_IMAGE = Problem(Reason.NO_IMAGE_FOR_DEVICE, "no image")
HEALTH = {"Current": "Healthy", "InProgress": "Progressing", "Failed": "Degraded"}

CASES: dict[str, tuple[dict[str, Any], Observation, str]] = {
    "serving": ({}, Observation(deployment(), (ready(),), {"new": LOADED}), "Current"),
    "asleep": ({"scaling": {"minReplicas": 0}}, Observation(STOPPED, replicas=0, woken=True), "Current"),
    "suspended": ({"suspend": True}, Observation(STOPPED), "Current"),
    "suspended without an image": ({"suspend": True}, Observation(blocked=NO_IMAGE), "Current"),
    "stopping": ({"replicas": 0}, Observation(deployment(0), (placed(terminating=True),)), "InProgress"),
    "starting": ({}, Observation(UNREADY, (placed(),)), "InProgress"),
    "waiting for a GPU": ({"gpu": {"count": 2}}, Observation(UNREADY, (pod(unschedulable=NO_GPU),)), "InProgress"),
    "rolling out behind a pod that serves": ({}, Observation(ROLLING, (OLD, placed())), "InProgress"),
    "an image that is not pulled yet": (
        {},
        Observation(ROLLING, (OLD, failing(Reason.IMAGE_PULL_FAILED))),
        "InProgress",
    ),
    "an image that is not pulled in time": (
        {},
        Observation(
            deployment(1, current_replicas=2, updated_replicas=1, stuck="timed out"),
            (OLD, failing(Reason.IMAGE_PULL_FAILED)),
        ),
        "Failed",
    ),
    "a bad file": ({}, Observation(UNREADY, (failing(Reason.MODEL_FILE_INVALID),)), "Failed"),
    "a bad file behind a pod that serves": (
        {},
        Observation(ROLLING, (OLD, failing(Reason.MODEL_FILE_INVALID))),
        "Failed",
    ),
    "no image": ({}, Observation(blocked=NO_IMAGE), "Failed"),
    "no image, and the old pod serves": ({}, Observation(deployment(), (OLD,), blocked=NO_IMAGE), "Failed"),
}


def flux(obj: dict[str, Any]) -> str:
    """By the rules of Flux' RFC 0009: the generation, then the expressions in this order."""
    if obj.get("status", {}).get("observedGeneration", 1) != obj["metadata"]["generation"]:
        return "InProgress"
    (check,) = FLUX["spec"]["healthCheckExprs"]
    context = {"status": {}, **obj}
    for state in ("inProgress", "failed", "current"):
        if cel.evaluate(check[state], context) is True:
            return state[0].upper() + state[1:]
    return "InProgress"


def argo(obj: dict[str, Any]) -> str:
    """Argo CD runs Lua 5.1, in which a list counts from 1."""
    lua = lupa.lua51.LuaRuntime()
    lua.globals()["obj"] = lua.table_from(obj, recursive=True)
    (script,) = ARGO["data"].values()
    health = lua.execute(script)
    assert health["message"]
    return str(health["status"])


@pytest.mark.parametrize("name", CASES)
def test_cluster_20_tools_understand_a_model(name: str) -> None:
    spec, seen, expected = CASES[name]
    obj = live_model(**spec, status=status(model(**spec), seen, NOW))
    assert (flux(obj), argo(obj)) == (expected, HEALTH[expected])
    if not name.startswith("suspended"):  # for which the page gives the health check
        assert kstatus(obj) == expected
    obj["metadata"]["generation"] = 2
    assert (flux(obj), argo(obj), kstatus(obj)) == ("InProgress", "Progressing", "InProgress")


def test_cluster_20_a_model_that_the_operator_has_not_seen_is_not_healthy() -> None:
    assert (flux(live_model()), argo(live_model())) == ("InProgress", "Progressing")
