"""The operator is killed, or away, at the worst of moments: before and after each of its writes, for a long time."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.chaos.bed import Bed
from tests.chaos.essence import children
from tests.chaos.pace import lasting, many
from tests.chaos.world import World
from tests.support.fault_proxy import WRITES, Action, Rule, drop, forward, lose_answer

RESTART_LIMIT = 60.0
SUBJECT = "subject-{:02}"
LEAST_WRITES = 3
"""One child, the status that says so, and the status at the end."""
CHANGE = {"maxConcurrency": 7, "replicas": 2}


def create(bed: Bed, name: str) -> None:
    bed.create(name)


def update(bed: Bed, name: str) -> None:
    bed.edit(name, **CHANGE)


OPERATIONS: dict[str, tuple[Callable[[Bed, str], None], bool]] = {"create": (create, False), "update": (update, True)}
each_operation = pytest.mark.parametrize("operation", ["create", pytest.param("update", marks=pytest.mark.full_only)])


def kill_before(bed: Bed) -> Action:
    return drop(then=lambda: bed.operator.signal(signal.SIGKILL))


def kill_after(bed: Bed) -> Action:
    return lose_answer(then=lambda: bed.operator.signal(signal.SIGKILL))


def lose(_: Bed) -> Action:
    return lose_answer()


@each_operation
def test_fault_01_killed_before_each_write(bed: Bed, operation: str) -> None:
    at_each_write(bed, operation, kill_before, dies=True)


@pytest.mark.full_only
@each_operation
def test_fault_02_killed_after_each_write(bed: Bed, operation: str) -> None:
    at_each_write(bed, operation, kill_after, dies=True)


@each_operation
def test_fault_02_answer_of_each_write_lost(bed: Bed, operation: str) -> None:
    at_each_write(bed, operation, lose, dies=False)
    conflicts = [line for line in bed.writes(0) if line.endswith(" 409")]
    assert len(conflicts) <= len(bed.scenario.seconds), f"AlreadyExists again and again: {conflicts}"


def at_each_write(bed: Bed, operation: str, fault: Callable[[Bed], Action], *, dies: bool) -> None:
    """A dry run counts the writes; then the fault meets the first, the second and so on, each on a new model."""
    operate, needs_model = OPERATIONS[operation]
    names = [SUBJECT.format(number) for number in range(dry_run(bed, operation) + 1)]
    if needs_model:
        for name in names[1:]:
            bed.create(name)
        bed.settles()
    met = []
    for nth, name in enumerate(names[1:], 1):
        rule = bed.proxy.add(Rule(fault(bed), verbs=WRITES, name=name, nth=nth))
        operate(bed, name)
        if not is_met(bed, rule):
            break  # two changes of the status have become one, so this run had fewer writes than the dry one
        met.append(name)
        began = time.monotonic()
        if dies:
            assert bed.operator.ends_within(5)
            bed.operator.start()
        bed.converges(RESTART_LIMIT, since=began)
        bed.proxy.clear()
    bed.scenario.note(f"W = {len(names) - 1} in the dry run")
    assert len(met) >= LEAST_WRITES
    world = World.of(bed.api)
    expected = children(world, names[0])
    for name in met:
        assert children(world, name) == expected
    bed.invariants_hold()


def dry_run(bed: Bed, operation: str) -> int:
    """How many writes the operation takes without a fault."""
    operate, needs_model = OPERATIONS[operation]
    if needs_model:
        bed.create(SUBJECT.format(0))
        bed.settles()
    counter = bed.proxy.add(Rule(forward(), verbs=WRITES, name=SUBJECT.format(0)))
    operate(bed, SUBJECT.format(0))
    bed.settles()
    bed.proxy.clear()
    return len(counter.calls)


def is_met(bed: Bed, rule: Rule) -> bool:
    """Whether the write came that the rule waits for; False when all is done without it."""
    if not rule.hit.wait(2):
        bed.wait_until(lambda world: [] if rule.hit.is_set() else bed.wrong(world), RESTART_LIMIT)
    return rule.hit.is_set()


def test_fault_01_a_deletion_writes_nothing(bed: Bed, garbage_collector: None) -> None:
    # So there is no write before which the operator could be killed: W is 0, and garbage collection does the work.
    bed.create()
    bed.settles()
    start = bed.audit.position()
    bed.api.delete("InferenceModel", "tiny")
    bed.converges(RESTART_LIMIT)
    assert bed.writes(start) == []
    bed.invariants_hold()


def test_fault_03_down_for_long(bed: Bed, garbage_collector: None) -> None:
    count = many(20)
    for number in range(count):
        bed.create(f"changed-{number}")
        bed.create(f"deleted-{number}")
    bed.settles()
    bed.operator.kill()
    for number in range(count):
        bed.create(f"created-{number}")
        bed.edit(f"changed-{number}", **CHANGE)
        bed.api.delete("InferenceModel", f"deleted-{number}")
    time.sleep(lasting(600))  # what is tested is that so much time passes
    deleted = [f"deleted-{number}" for number in range(count)]
    for name in deleted:
        for kind in ("Deployment", "Service"):
            bed.api.wait(kind, name, lambda found: found is None, what="gone without the operator", seconds=60)
    began = time.monotonic()
    bed.operator.start()
    bed.converges(60, since=began, runs=3 * count)
    bed.invariants_hold()


def test_fault_15_deleted_without_an_operator(bed: Bed, garbage_collector: None) -> None:
    bed.create()
    bed.settles()
    live = bed.api.get("InferenceModel", "tiny")
    assert live is not None
    assert "finalizers" not in live["metadata"]
    bed.operator.kill()
    began = time.monotonic()
    bed.api.delete("InferenceModel", "tiny")
    for kind in ("InferenceModel", "Deployment", "Service"):
        bed.api.wait(kind, "tiny", lambda found: found is None, what="gone", seconds=30)
    bed.scenario.converged(time.monotonic() - began)
    bed.operator.start()
    bed.invariants_hold()
