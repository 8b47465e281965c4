"""Whatever way leads to a spec, it ends where a new model of that spec begins: the differential oracle.

A state machine of hypothesis creates, edits and deletes models, kills the operator and makes requests fail, in any
order and without waiting. At the end of each way everything must converge, be true, and be still; then all models are
deleted and made anew from their last specs, and what there is then must be equal to what there was.
"""

import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import yaml
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.chaos.bed import Bed
from tests.chaos.essence import children
from tests.chaos.pace import FULL
from tests.chaos.world import World, serving
from tests.support.api import ApiRefusedError, Object, condition, settled
from tests.support.fault_proxy import WRITES, Rule, answer, drop, lose_answer
from tests.support.operator import ROOT

NAMES = ("one", "two")
CRD = ROOT / "crds" / "moorage.dev_inferencemodels.yaml"
EXAMPLES, STEPS = (60, 15) if FULL else (4, 10)
STILL_SECONDS = 2.0
WAITS = {"Unschedulable", "WaitingForGPU", "NoSuchResource", "VolumeNotFound"}
"""Why a model may be at rest although not all of its pods run."""

HISTORY = ("preemption", "preemptedBy", "startup", "observedGeneration", "queue")
"""Fields of a status that tell how it came about."""


def spec_schema() -> dict[str, Any]:
    """The schema of a model's spec, as it is published."""
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


SCHEMA = spec_schema()

CHOSEN: dict[str, list[Any]] = {
    "framework": ["llamacpp"],
    "source.uri": ["oci://localhost/models/smollm2:135m-q4", "oci://localhost/models/other:1", "pvc://absent/a.gguf"],
    "gpu.count": [0, 1, 2, 64],
    "resources.cpu": ["10m", "20m", "1000"],
    "resources.memory": ["16Mi", "32Mi"],
    "replicas": [0, 1, 2],
}
"""Fields whose values the small cluster limits, or that no schema can tell; others are drawn from their schemas."""


def values(schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    """Values for a field: such as its schema allows, not all of which its rules do."""
    if path in CHOSEN:
        return st.sampled_from(CHOSEN[path])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("type") == "object" and "properties" in schema:
        fields = {name: values(below, f"{path}.{name}") for name, below in schema["properties"].items()}
        return st.fixed_dictionaries({}, optional=fields)
    if schema.get("type") == "integer":
        least, most = schema.get("minimum", 0), schema.get("maximum", 2**31 - 1)
        return st.integers(least, min(most, least + 9)) | st.just(most)
    if schema.get("type") == "boolean":
        return st.booleans()
    return st.just(schema["example"])


EDITS = st.sampled_from(sorted(SCHEMA["properties"])).flatmap(
    lambda field: st.tuples(st.just(field), st.none() | values(SCHEMA["properties"][field], field))
)
MINIMAL: Object = {"framework": "llamacpp", "source": {"uri": CHOSEN["source.uri"][0]}}
SMALL: Object = {"resources": {"cpu": "10m", "memory": "16Mi"}}


def at_rest(model: Object) -> bool:
    """It serves as its spec says, or waits for what the cluster does not have."""
    return settled(model) and (serving(model) or condition(model, "Scheduled").get("reason") in WAITS)


class Models(RuleBasedStateMachine):
    """Two models and all that may happen to them; `bed` is set by the test, before each way."""

    bed: ClassVar[Bed]
    ways: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        """Every way begins with nothing."""
        type(self).ways += 1

    @rule(name=st.sampled_from(NAMES), edit=EDITS)
    def create(self, name: str, edit: tuple[str, Any]) -> None:
        """A new model with one field of its own."""
        field, value = edit
        spec = {**MINIMAL, **SMALL, **({field: value} if value is not None else {})}
        self._ask(lambda: self.bed.api.create(manifest(name, spec)))

    @rule(name=st.sampled_from(NAMES), edit=EDITS)
    def edit(self, name: str, edit: tuple[str, Any]) -> None:
        """Some field gets a value, or is taken away."""
        field, value = edit
        self._ask(lambda: self.bed.edit(name, **{field: value}))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """A model goes."""
        self.bed.api.delete("InferenceModel", name)

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(["Deployment", "Service", "PodDisruptionBudget"]))
    def delete_child(self, name: str, kind: str) -> None:
        """Somebody deletes what the operator has made."""
        self.bed.api.delete(kind, name)

    @rule(name=st.sampled_from(NAMES))
    def drift(self, name: str) -> None:
        """Somebody scales the Deployment."""
        self._ask(lambda: self.bed.api.patch("Deployment", name, {"spec": {"replicas": 3}}))

    @rule()
    def restart(self) -> None:
        """The operator dies and is started again."""
        self.bed.operator.kill()
        self.bed.operator.start()

    @rule(
        action=st.sampled_from([drop(), lose_answer(), answer(500, "InternalError"), answer(409, "Conflict")]),
        nth=st.integers(1, 4),
    )
    def write_fails(self, action: Any, nth: int) -> None:
        """One of the next writes fails."""
        self.bed.proxy.add(Rule(action, verbs=WRITES, namespace=self.bed.api.namespace, nth=nth))

    @rule(nth=st.integers(1, 4))
    def dies_at_a_write(self, nth: int) -> None:
        """The operator will be killed at one of its next writes; it is started again in the end, or before."""
        kill = drop(then=partial(self.bed.operator.signal, signal.SIGKILL))
        self.bed.proxy.add(Rule(kill, verbs=WRITES, namespace=self.bed.api.namespace, nth=nth))

    @rule(wait=st.sampled_from([1, 2]))
    def throttled(self, wait: int) -> None:
        """The next requests are told to come later."""
        self.bed.proxy.add(Rule(answer(429, "TooManyRequests", retry_after=wait), verbs=("get", *WRITES), times=3))

    @rule(act=st.sampled_from(["cut", "expire", "fail"]))
    def watches_end(self, act: str) -> None:
        """All watches break, are too old, or end with an error."""
        acts: dict[str, Callable[[], object]] = {
            "cut": self.bed.proxy.cut,
            "expire": lambda: self.bed.proxy.fail_watches(410, "Expired"),
            "fail": lambda: self.bed.proxy.fail_watches(500, "InternalError"),
        }
        acts[act]()

    @rule()
    def converge(self) -> None:
        """Sometimes there is time in between."""
        self._recover()

    def teardown(self) -> None:
        """The oracles: it converges, is still, and is as if it had been made anew."""
        bed = self.bed
        self._recover()
        bed.is_still(STILL_SECONDS)
        reached = World.of(bed.api)
        specs = {m["metadata"]["name"]: m["spec"] for m in sorted(reached.models, key=age)}
        path = {name: essence(reached, name) for name in specs}
        self._delete_all()
        for name, spec in specs.items():
            bed.api.create(manifest(name, spec))
        bed.settles(to=at_rest)
        fresh = World.of(bed.api)
        for name in specs:
            assert_same(path[name], essence(fresh, name))
        self._delete_all()

    def _ask(self, request: Callable[[], object]) -> None:
        # What the API server refuses, by a rule of the schema or because it is not there, never reaches the operator.
        try:
            request()
        except ApiRefusedError as refusal:
            assert refusal.status in (404, 409, 422), refusal

    def _recover(self) -> None:
        self.bed.proxy.clear()
        began = time.monotonic()
        # It may be on its way to death just now.
        if self.bed.operator.ends_within(0.3):
            self.bed.operator.start()
        self.bed.converges(60, to=at_rest, since=began)

    def _delete_all(self) -> None:
        for name in NAMES:
            self.bed.api.delete("InferenceModel", name)
        self.bed.settles(to=at_rest)


def manifest(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": spec,
    }


def age(model: Object) -> tuple[str, str]:
    return model["metadata"]["creationTimestamp"], model["metadata"]["name"]


def essence(world: World, name: str) -> dict[str, Any]:
    """What a model has come to: its children, and its status without its history."""
    (model,) = [model for model in world.models if model["metadata"]["name"] == name]
    status = {key: value for key, value in model["status"].items() if key not in HISTORY}
    kept = ("type", "status", "reason", "message")
    conditions = [{key: c[key] for key in kept} for c in status["conditions"] if c["type"] != "Preempted"]
    return {"children": children(world, name), "status": {**status, "conditions": conditions}, "done": serving(model)}


def assert_same(path: dict[str, Any], fresh: dict[str, Any]) -> None:
    """The children are equal; so are the statuses, unless pods of an earlier spec serve on while those of this wait."""
    assert path["children"] == fresh["children"]
    assert path["done"] == fresh["done"]
    if fresh["done"]:
        assert path["status"] == fresh["status"]


def test_every_way_to_a_spec_ends_in_the_same_state(bed: Bed, garbage_collector: None) -> None:
    Models.bed, Models.ways = bed, 0
    bed.api.wait_until_alone()
    run_state_machine_as_test(
        Models,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # A way takes seconds, so one that fails is told as it is; in `make test` the ways are always the same.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            derandomize=not FULL,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    bed.scenario.note(f"{Models.ways} ways of up to {STEPS} steps")
    assert bed.operator.errors() == []
