"""The access log and the metrics: what is told of requests, and what is not."""

import asyncio
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from moorage_gateway.accesslog import MOST_WAITING, AccessLog, Writer
from moorage_gateway.addresses import Clients, read_networks
from moorage_gateway.desk import Desk
from moorage_gateway.gauges import ModelGauges
from moorage_gateway.keys import ApiKey
from moorage_gateway.metrics import MOST_CALLERS, Metrics
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import get, post
from tests.unit.gateway.support import CHAT, DIGEST, KEY, MODEL, Bed, answers, running

AUTH = f"Authorization: Bearer {KEY}"
PROMPT = "my secret prompt"
BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": PROMPT}]}).encode()
USAGE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(USAGE), USAGE)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Logged:
    """A desk that logs."""

    per_second: int = 100
    batches: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = AccessLog(self.per_second, self.take, lambda: 1_000_000_000.5)
        clients = Clients(read_networks("127.0.0.0/8"))
        self.desk = Desk(asyncio.get_running_loop().time, clients=clients, log=self.log)

    def take(self, batch: bytes) -> bool:
        self.batches.append(batch)
        return True

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was written."""
        self.log.flush()
        return [json.loads(line) for line in b"".join(self.batches).splitlines()]


def samples(bed: Bed) -> dict[str, float]:
    """All series with their values."""
    text = bed.desk.metrics.page().body.decode()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines()) if name[:1] != "#"
    }


async def test_a_request_leaves_a_line_without_what_is_in_it() -> None:
    logged = Logged()
    async with running(answers(ANSWER), desk=logged.desk) as (bed, [pod]):
        headers = (f"traceparent: {PARENT}", "x-request-id: r1", "X-Forwarded-For: 203.0.113.5")
        await bed.gateway.ask(post(BODY, AUTH, *headers, path=f"{CHAT}?api_key=hunter2"))

        (line,) = logged.lines
        assert 0 < line.pop("ttft_seconds") <= line.pop("seconds") < 10
        assert line == {
            "time": "2001-09-09T01:46:40.500Z",
            "level": "info",
            "logger": "moorage_gateway.access",
            "message": "request",
            "status": 200,
            "route": CHAT,
            "method": "POST",
            "model": str(MODEL),
            "caller": "key:tester",
            "client": "203.0.113.5",
            "pod": f"127.0.0.1:{pod.port}",
            "bytes_in": len(BODY),
            "bytes_out": len(USAGE),
            "tokens_in": 5,
            "tokens_out": 7,
            "request_id": "r1",
            "trace_id": PARENT[3:35],
        }


async def test_bad_input_58_refused_requests_leave_a_line_too_and_nothing_that_they_made_up() -> None:
    logged = Logged()
    async with running(answers(), desk=logged.desk) as (bed, _):
        await bed.gateway.ask(get("/v1/models", AUTH))
        await bed.gateway.ask(post(BODY.replace(b"chat", b"hunter2"), AUTH, path=CHAT))
        await bed.gateway.ask(post(BODY, AUTH, path="/hunter2"))
        await bed.gateway.ask(post(BODY, AUTH, path="/models/hunter2/hunter2/v1/completions"))
        await bed.gateway.ask(post(BODY, "Authorization: Bearer hunter2", path=CHAT))
        await bed.gateway.ask(post(BODY, path=CHAT))
        bed.table.put(ModelKey("team-a", "asleep"), "asleep")
        bed.keys.put("other", ApiKey(id="other", digest=DIGEST, everything=True))
        await bed.gateway.ask(post(b'{"model":"asleep"}', "Authorization: Bearer mrg_other_s3cret", path=CHAT))

        told = [(line["status"], line["route"], line.get("model", ""), line.get("error", "")) for line in logged.lines]
        assert told == [
            (200, "/v1/models", "", ""),
            (404, CHAT, "", "client"),
            (404, "other", "", "client"),
            (404, "/v1/completions", "", "client"),
            (401, CHAT, "", "client"),
            (401, CHAT, "", "client"),
            (503, CHAT, "team-a/asleep", "capacity"),
        ]
        assert "hunter2" not in json.dumps(logged.lines)
        assert PROMPT not in json.dumps(logged.lines)
        assert logged.lines[4].get("caller") is None


async def test_a_busy_second_is_sampled_and_counted_failures_apart() -> None:
    logged = Logged(per_second=3)
    async with running(answers(ANSWER), desk=logged.desk) as (bed, _):
        for _ in range(10):
            await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        await bed.gateway.ask(post(BODY, AUTH, path="/nowhere"))
        assert [line["status"] for line in logged.lines] == [200, 200, 200, 404]
        logged.log.new_second()
        (last,) = logged.lines[4:]
        assert (last["message"], last["successes"], last["failures"]) == ("requests left out", 7, 0)
        await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        assert len(logged.lines) == 6


def test_lines_reach_the_reader_and_a_reader_that_stalls_holds_nobody_up() -> None:
    reading, writing = os.pipe()
    writer = Writer(writing)
    log = AccessLog(10**6, writer.write, lambda: 0.0)
    line = b"x" * 1024
    # Nobody reads: the pipe fills, batches wait, then they are dropped.
    taken = [writer.write(line * 64) for _ in range(MOST_WAITING + 10)]
    assert not all(taken)
    while log.left_out == [0, 0]:  # a place may have come free when the writer took what it now cannot write
        log.add(log.line(200))
        log.flush()
    assert log.left_out == [1, 0]
    with os.fdopen(reading, "rb") as reader:
        received = len(reader.read(sum(taken) * 64 * 1024))
        assert received == sum(taken) * 64 * 1024
        assert writer.write(b"last\n")
        writer.close()
        os.close(writing)
        assert reader.read().endswith(b"last\n")


def test_lines_of_several_processes_do_not_mix() -> None:
    reading, writing = os.pipe()
    writers = [Writer(writing) for _ in range(4)]
    lines = {number: b"%d" % number * 700 + b"\n" for number in range(4)}
    for number, writer in enumerate(writers):
        assert writer.write(lines[number] * 50)
    with os.fdopen(reading, "rb") as reader:
        told = [reader.readline() for _ in range(200)]
        for writer in writers:
            writer.close()
        os.close(writing)
    assert sorted(told) == sorted(line for line in lines.values() for _ in range(50))


def test_a_writer_whose_reader_has_gone_goes_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = Writer(writing)
    assert writer.write(b"nobody\n")
    writer.close()
    os.close(writing)


async def test_requirements_d_row_4_errors_are_counted_by_kind_and_latency_in_buckets() -> None:
    slow = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 2\r\n\r\n{}"
    broken = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"
    full = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}"
    replies = iter([ANSWER, ANSWER, slow, broken, full, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])

    def script(pod: Any, request: bytes, writer: asyncio.StreamWriter) -> None:
        content = next(replies)
        writer.write(content)
        if content.endswith(b"\n{"):
            writer.close()

    async with running(script) as (bed, _):
        for _ in range(5):
            await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        await bed.gateway.ask(post(b"{}", AUTH, path=CHAT))
        told = samples(bed)

        requests = {name: value for name, value in told.items() if name.startswith("moorage_gateway_requests_total")}
        series = 'moorage_gateway_requests_total{{error="{}",model="{}",status="{}"}}'.format
        assert requests == {
            series("", MODEL, 200): 2,
            series("timeout", MODEL, 504): 1,
            series("model", MODEL, 500): 1,
            series("capacity", MODEL, 429): 1,
            series("model", MODEL, 200): 1,
            series("client", "", 400): 1,
        }
        tokens = (
            'moorage_gateway_tokens_total{{caller="key:tester",kind="{}",model="team-a/chat",source="usage"}}'.format
        )
        assert (told[tokens("input")], told[tokens("output")]) == (10, 14)
        # P95 and P99 are computed from the buckets, whose last holds all.
        bucket = 'moorage_gateway_request_duration_seconds_bucket{{le="{}",model="team-a/chat"}}'.format
        assert told[bucket("+Inf")] == told['moorage_gateway_request_duration_seconds_count{model="team-a/chat"}'] == 6
        assert told[bucket("0.01")] <= told[bucket("81.92")] <= 6


async def test_streams_have_a_time_to_their_first_token_and_estimates_are_told_apart() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[]}\n\n'
    stream = head + b"%x\r\n%b\r\n" % (len(event), event) * 10 + b"0\r\n\r\n"
    async with running(answers(stream)) as (bed, _):
        await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        told = samples(bed)
        assert told['moorage_gateway_time_to_first_token_seconds_count{model="team-a/chat"}'] == 1
        tokens = [name for name in told if name.startswith("moorage_gateway_tokens_total")]
        assert all('source="estimate"' in name for name in tokens)
        assert sorted(told[name] for name in tokens) == [10, len(BODY) // 4]


async def test_limits_and_logins_are_counted() -> None:
    async with running(answers()) as (bed, _):
        bed.keys.put("small", ApiKey(id="small", digest=DIGEST, requests_per_minute=1))
        for _ in range(3):
            await bed.gateway.ask(get("/v1/models", "Authorization: Bearer mrg_small_s3cret"))
        await bed.gateway.ask(get("/v1/models", "Authorization: Bearer wrong"))
        told = samples(bed)
        assert told['moorage_gateway_rate_limited_total{caller="key:small",limit="requests"}'] == 2
        assert told['moorage_gateway_failed_logins_total{answer="unauthorized"}'] == 1


async def test_what_is_true_at_the_moment_is_read_with_the_metrics() -> None:
    held: list[asyncio.StreamWriter] = []
    async with running(lambda _pod, _request, writer: held.append(writer)) as (bed, [pod]):
        bed.desk.metrics.add(ModelGauges(lambda: bed.table))
        asking = asyncio.create_task(bed.gateway.ask(post(BODY, AUTH, path=CHAT)))
        while not held:
            await asyncio.wait([asking], timeout=0.01)
        told = samples(bed)
        assert told['moorage_gateway_requests_in_flight{model="team-a/chat"}'] == 1
        assert told['moorage_gateway_upstream_connections{model="team-a/chat",state="in_use"}'] == 1
        answers()(pod, b"", held[0])
        await asking
        held.clear()
        asking = asyncio.create_task(bed.gateway.ask(post(BODY, AUTH, path=CHAT)))
        while not held:
            await asyncio.wait([asking], timeout=0.01)
        # The kept connection is dropped: the request goes again on a fresh one.
        held.pop().transport.abort()
        while not held:
            await asyncio.wait([asking], timeout=0.01)
        answers()(pod, b"", held[0])
        await asking
        told = samples(bed)
        upstream = 'moorage_gateway_upstream_total{{event="{}",model="team-a/chat"}}'.format
        assert [told[upstream(event)] for event in ("opened", "reused", "stale", "failed")] == [2, 1, 1, 0]
        assert told['moorage_gateway_upstream_connections{model="team-a/chat",state="idle"}'] == 1
        assert told['moorage_gateway_upstream_connections{model="team-a/chat",state="in_use"}'] == 0
        assert told['moorage_gateway_ready_pods{model="team-a/chat",state="used"}'] == 1


async def test_series_of_models_and_keys_that_have_gone_vanish() -> None:
    async with running(answers(ANSWER)) as (bed, _):
        await bed.gateway.ask(post(BODY, AUTH, path=CHAT))
        bed.desk.metrics.forget_gone(lambda name: True, bed.keys.may_be_caller)
        assert re.search('caller="key:tester"', "".join(samples(bed)))
        bed.keys.remove("uid")
        bed.desk.metrics.forget_gone(lambda name: True, bed.keys.may_be_caller)
        assert not re.search("tester", "".join(samples(bed)))
        bed.desk.metrics.forget_gone(lambda name: False, bed.keys.may_be_caller)
        assert not re.search("team-a", "".join(samples(bed)))


async def test_callers_beyond_a_bound_are_one() -> None:
    metrics = Metrics()
    for number in range(MOST_CALLERS + 50):
        metrics.limited(f"user{number}", "requests")
    text = metrics.page().body.decode()
    assert text.count("moorage_gateway_rate_limited_total{") == MOST_CALLERS + 1
    assert 'moorage_gateway_rate_limited_total{caller="other",limit="requests"} 50.0' in text
