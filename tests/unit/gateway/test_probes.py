"""What the kubelet, and whoever looks, is told by the probes."""

from typing import Any

import msgspec

from moorage_common.http.message import Answer
from moorage_gateway.probes import merged_probe, probe_answer


def told(answer: Answer) -> tuple[int, Any]:
    return answer.status, msgspec.json.decode(answer.body)


def test_what_cannot_be_watched_is_told_and_is_no_reason() -> None:
    assert told(probe_answer([])) == (200, {"ok": True, "reasons": []})
    lost = ["Secret in namespace keys: 403 Forbidden"]
    assert told(probe_answer([], lost)) == (200, {"ok": True, "reasons": [], "unwatched": lost})
    assert told(probe_answer(["draining"], [])) == (503, {"ok": False, "reasons": ["draining"], "unwatched": []})


def test_workers_are_told_as_one() -> None:
    first, second = probe_answer([], ["a", "b"]), probe_answer(["not listed yet: x"], ["a"])
    status, both = told(merged_probe([first.body.decode(), second.body.decode()], ["draining"]))
    assert (status, both["unwatched"]) == (503, ["a", "b"])
    assert both["reasons"] == ["worker 1: not listed yet: x", "draining"]
    assert told(merged_probe([first.body.decode()] * 2)) == (200, {"ok": True, "reasons": [], "unwatched": ["a", "b"]})
    assert told(merged_probe([probe_answer([]).body.decode()])) == (200, {"ok": True, "reasons": []})


def test_a_worker_that_does_not_answer_is_a_reason() -> None:
    status, probe = told(merged_probe([probe_answer([]).body.decode(), "no answer in 3 s"]))
    assert (status, probe["reasons"]) == (503, ["worker 1: no answer in 3 s"])
