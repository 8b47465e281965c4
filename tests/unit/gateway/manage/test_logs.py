"""The logs of several pods as one stream."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.errors import ForbiddenError
from moorage_gateway.manage.logs import LONGEST_LINE, MOST_READ, LogOptions, Readers, log_lines, pods_of
from moorage_gateway.manage.problems import Problem
from tests.unit.common.support import until

OPTIONS = LogOptions("runtime", 100, follow=True, since_seconds=None, timestamps=False, previous=False)


@dataclass
class FakeKube:
    """Pods and what they say; None is silence for ever."""

    said: dict[str, list[bytes | Exception | None]]
    asked: list[Mapping[str, str]] = field(default_factory=list)
    open: int = 0

    async def logs(self, namespace: str, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        self.asked.append(options)
        self.open += 1
        try:
            for piece in self.said[pod]:
                if isinstance(piece, Exception):
                    raise piece
                if piece is None:
                    await asyncio.Event().wait()
                else:
                    yield piece
        finally:
            self.open -= 1

    async def page(self, *_: Any, **__: Any) -> dict[str, Any]:
        made = [("old", "2026-01-01T00:00:00Z"), ("new", "2026-01-02T00:00:00Z")]
        return {"items": [{"metadata": {"name": name, "creationTimestamp": at}} for name, at in made]}


async def lines(said: dict[str, list[bytes | Exception | None]]) -> list[bytes]:
    return [line async for line in log_lines(cast(Kube, FakeKube(said)), "team-a", list(said), OPTIONS)]


async def test_one_log_is_as_it_is_and_several_have_names() -> None:
    assert await lines({"a": [b"one\ntw", b"o\nthree"]}) == [b"one\n", b"two\n", b"three\n"]
    assert sorted(await lines({"a": [b"x\n"], "b": [b"y\n"]})) == [b"[a] x\n", b"[b] y\n"]


async def test_a_line_without_an_end_is_passed_on_in_parts() -> None:
    piece = b"x" * (LONGEST_LINE + 1)
    assert await lines({"a": [piece, b"y"]}) == [piece, b"y\n"]


async def test_what_is_refused_of_all_is_raised_and_of_some_is_told() -> None:
    no = ForbiddenError(403, "Forbidden", "no logs for you")
    with pytest.raises(ForbiddenError):
        await lines({"a": [no], "b": [no]})
    told = await lines({"a": [no], "b": [b"x\n"]})
    assert told[0] == b"[b] x\n"
    assert b"no logs for you" in told[1]


async def test_a_fault_of_ours_is_no_end_of_a_log() -> None:
    with pytest.raises(RuntimeError):
        await lines({"a": [b"x\n", RuntimeError("bug")], "b": [None]})


async def test_whoever_leaves_leaves_nothing_open() -> None:
    # More than may wait: those who read are held back, and end all the same.
    kube = FakeKube({"a": [b"x\n"] * 10_000, "b": [None]})
    stream = log_lines(cast(Kube, kube), "team-a", ["a", "b"], OPTIONS)
    assert await anext(stream) == b"[a] x\n"
    await cast(Any, stream).aclose()
    await until(lambda: not kube.open)
    assert kube.asked[0] == {"container": "runtime", "tailLines": "100", "follow": "true"}


async def test_pods_are_those_of_this_very_model_the_youngest_first() -> None:
    model = {"metadata": {"name": "m", "namespace": "team-a", "uid": "u"}}
    assert await pods_of(cast(Kube, FakeKube({})), model) == ["new", "old"]


async def test_bad_input_60_long_lines_that_nobody_reads_fill_no_memory() -> None:
    """As many logs as are let through are followed at a time, in a process that shares the gateway's memory."""
    read = 0

    class Chatty(FakeKube):
        async def logs(self, namespace: str, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += LONGEST_LINE
                yield b"x" * (LONGEST_LINE - 1) + b"\n"

    stream = log_lines(cast(Kube, Chatty({})), "team-a", ["a"], OPTIONS)
    assert await anext(stream)
    await asyncio.sleep(0.1)
    await cast(Any, stream).aclose()
    assert read < 2 * 2**20


async def test_bad_input_60_who_follows_logs_keeps_nobody_else_out() -> None:
    readers, kube = Readers(), cast(Kube, FakeKube({"a": [b"x\n", None]}))

    def follow(who: str) -> AsyncIterator[bytes]:
        return readers.counted(who, log_lines(kube, "team-a", ["a"], OPTIONS))

    followed = [follow(f"system:serviceaccount:team-a:{number}") for number in range(MOST_READ)]
    for lines_ in followed:
        assert await anext(lines_) == b"x\n"
    with pytest.raises(Problem) as refused:
        await anext(follow("system:serviceaccount:team-a:another"))
    assert refused.value.status == 429
    others = [follow(who) for who in ("system:serviceaccount:team-b:0", "moorage:key:ci", "somebody")]
    for lines_ in others:
        assert await anext(lines_) == b"x\n"
    await cast(Any, followed[0]).aclose()
    again = follow("system:serviceaccount:team-a:another")
    assert await anext(again) == b"x\n"
    for lines_ in [*followed, *others, again]:
        await cast(Any, lines_).aclose()
