"""The gateway before pods that are real runtimes: official clients, and pods that are killed under many streams."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from hack.cluster.api import Cluster
from hack.node import node_command
from tests.integration.runtime.conftest import Runtime
from tests.support.api import Api
from tests.support.fleet import Fleet, fleet
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import model
from tests.support.operator import kubeconfig_of
from tests.support.waiting import eventually
from tests.unit.common.support import Client, post

STREAMS = 200
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the rights of the chart."""
    folder = tmp_path_factory.mktemp("gateway")
    kubeconfig = kubeconfig_of(cluster, folder / "kubeconfig", "moorage-gateway")
    # What has no pod waits, but not for as long as a test.
    with gateway_process(kubeconfig, folder, MOORAGE_GATEWAY_HOLD_SECONDS="5") as process:
        yield process


@pytest.fixture
def key(admin: Api, api: Api) -> Iterator[str]:
    """A key for the models of the test's namespace."""
    yield make_key(admin, api.namespace, models=f"{api.namespace}/*")
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}")


@pytest.fixture
def pods(api: Api, tmp_path: Path) -> Iterator[Fleet]:
    """Four pods of the model `fleet`."""
    api.create(model("fleet", maxConcurrency=256))
    settings = {"MAX_CONCURRENT_REQUESTS": "256"}
    with fleet(api, "fleet", tmp_path, 4, **settings) as made:
        yield made


def listed(gateway: GatewayProcess, key: str) -> dict[str, bool]:
    """The models that are listed, and whether they are ready."""
    answer = httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    return {entry["id"]: entry["ready"] for entry in answer.json()["data"]} if answer.status_code == 200 else {}


def errors(gateway: GatewayProcess, name: str) -> dict[str, int]:
    """How many requests for a model ended how, by the gateway's own count."""
    page = httpx.get(f"http://127.0.0.1:{gateway.admin_port}/metrics", trust_env=False).text
    found = re.findall(r"moorage_gateway_requests_total\{([^}]*)\} (\S+)", page)
    counts: dict[str, int] = {}
    for labels, value in found:
        if f'model="{name}"' in labels:
            error = re.search(r'error="([^"]*)"', labels)
            assert error is not None
            counts[error[1]] = counts.get(error[1], 0) + int(float(value))
    return counts


def test_openais_client_for_node_chats_streams_and_embeds(
    gateway: GatewayProcess, api: Api, key: str, tmp_path: Path
) -> None:
    api.create(model("fleet", maxConcurrency=256))
    api.create(model("embedder", task="embed"))
    with (
        fleet(api, "fleet", tmp_path, MAX_CONCURRENT_REQUESTS="256"),
        fleet(api, "embedder", tmp_path, MODEL_TASK="embed"),
    ):
        every = {f"{api.namespace}/embedder": True, f"{api.namespace}/fleet": True}
        eventually(lambda: listed(gateway, key) == every, "both are ready", seconds=10)
        command, variables = node_command(HERE / "openai_client.cjs")
        asked = {"BASE_URL": f"{gateway.url}/v1", "API_KEY": key, "MODEL": "fleet", "EMBEDDER": "embedder"}
        done = subprocess.run(
            command, env={**variables, **asked}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)

        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as python:
            question = [{"role": "user", "content": "one two !tokens=4"}]
            same = python.chat.completions.create(model="fleet", max_tokens=4, messages=question)  # type: ignore[arg-type]
            assert python.models.retrieve(f"{api.namespace}/fleet").id == f"{api.namespace}/fleet"
    assert told["models"] == sorted(every)
    assert told["chat"] == same.choices[0].message.content == "".join(told["pieces"])
    assert len([piece for piece in told["pieces"] if piece]) == 4
    assert told["usage"]["completion_tokens"] == 4
    assert told["completion"]
    assert told["same"] is True
    assert told["embeddings"] == [8, 8]
    assert (told["unauthorized"], told["unknown"]) == (True, "model_not_found")


def answered(pod: Runtime) -> int:
    """How many requests a pod has answered, by its own count."""
    page = httpx.get(f"{pod.url}/metrics", trust_env=False).text
    counts = re.findall(
        r'^moorage_runtime_requests_total\{.*route="/v1/chat/completions".*\} (\S+)', page, re.MULTILINE
    )
    return sum(int(float(count)) for count in counts)


class Stream:
    """One client's stream of events."""

    def __init__(self, gateway: GatewayProcess, key: str, words: str) -> None:
        self._gateway = gateway
        self._key = key
        self._words = words
        self.begun = asyncio.Event()
        self.text = b""
        self.whole = False

    async def run(self) -> None:
        """Read it to its end."""
        messages = [{"role": "user", "content": self._words}]
        body = json.dumps({"model": "fleet", "max_tokens": 60, "stream": True, "messages": messages}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        client = Client(reader, writer)
        try:
            await client.send(post(body, f"Authorization: Bearer {self._key}", path="/v1/chat/completions"))
            async with asyncio.timeout(60):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200"), head + await reader.read(1000)
                self.begun.set()
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    self.text += (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
                self.whole = True
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def tokens(self) -> int:
        """Pieces of text that came."""
        return self.text.count(b'"content":"') - self.text.count(b'"content":""')


async def test_fault_29_pods_that_are_killed_under_200_streams_lose_no_request_that_was_not_answered(
    gateway: GatewayProcess, pods: Fleet, api: Api, key: str
) -> None:
    name = f"{api.namespace}/fleet"
    await asyncio.to_thread(eventually, lambda: listed(gateway, key) == {name: True}, "it is ready", seconds=10)
    # Half of them stream, the others wait for their first token, when two of the four pods are killed.
    streaming = [Stream(gateway, key, "go !tokens=40 !delay=0.1") for _ in range(STREAMS // 2)]
    waiting = [Stream(gateway, key, "go !tokens=40 !wait=3") for _ in range(STREAMS // 2)]
    running = [asyncio.create_task(stream.run()) for stream in (*streaming, *waiting)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(stream.begun.wait() for stream in streaming))
    assert not any(stream.begun.is_set() for stream in waiting)
    for number in (0, 1):
        await asyncio.to_thread(pods.kill, number)
    await asyncio.gather(*running)

    # Whoever had nothing yet has all of it, and it was answered once.
    assert all(stream.whole and stream.tokens == 40 for stream in waiting)
    whole = [stream for stream in streaming if stream.whole]
    assert sum(answered(pod) for pod in pods.pods[2:]) == len(waiting) + len(whole)
    # Who had a part is told that it is one; those of the other pods have noticed nothing.
    broken = [stream for stream in streaming if not stream.whole]
    assert all(stream.tokens == 40 for stream in whole)
    assert len(broken) >= STREAMS // 8
    assert [b'"code":"backend_gone"' in stream.text for stream in broken] == [True] * len(broken)
    assert not any(b"backend_gone" in stream.text for stream in whole)
    assert errors(gateway, name) == {"": STREAMS - len(broken), "model": len(broken)}

    # The dead pods are passed over, told or not; nobody waits, and nothing is left.
    for number in (0, 1):
        await asyncio.to_thread(pods.leave, number)
    again = [Stream(gateway, key, "go !tokens=40") for _ in range(50)]
    await asyncio.gather(*(stream.run() for stream in again))
    assert all(stream.whole and stream.tokens == 40 for stream in again)


def connected(gateway: GatewayProcess, pods: Fleet) -> int:
    """How many connections the gateway has to clients and pods."""
    ports = {gateway.port, *(pod.port for pod in pods.pods)}
    return sum(
        bool(connection.raddr) and bool({connection.laddr.port, connection.raddr.port} & ports)
        for connection in psutil.Process(gateway.process.pid).net_connections()
    )


def ask(gateway: GatewayProcess, key: str, words: str) -> httpx.Response:
    """One request, whole."""
    body = {"model": "fleet", "max_tokens": 40, "messages": [{"role": "user", "content": words}]}
    return httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    )


async def test_fault_29_slow_and_failing_pods_and_none_at_all_leave_nobody_waiting(
    gateway: GatewayProcess, pods: Fleet, api: Api, key: str
) -> None:
    name = f"{api.namespace}/fleet"
    await asyncio.to_thread(eventually, lambda: listed(gateway, key) == {name: True}, "it is ready", seconds=10)
    # An error of a pod is the client's to know; nothing is tried again.
    failed = await asyncio.to_thread(ask, gateway, key, "!status=500")
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    assert sum(answered(pod) for pod in pods.pods) == 1

    # A pod that stands still holds up its own requests only, and as long as it does.
    pods.pods[0].process.send_signal(signal.SIGSTOP)
    slow = [Stream(gateway, key, "go !tokens=40") for _ in range(40)]
    running = [asyncio.create_task(stream.run()) for stream in slow]
    async with asyncio.timeout(20):
        while sum(stream.whole for stream in slow) < 30:  # noqa: ASYNC110 - several tasks, of which some cannot end
            await asyncio.sleep(0.02)
    pods.pods[0].process.send_signal(signal.SIGCONT)
    await asyncio.gather(*running)
    assert all(stream.whole and stream.tokens == 40 for stream in slow)

    # Scaled to nothing under load: what runs is finished, what comes is told to come again.
    last = [Stream(gateway, key, "go !tokens=40 !delay=0.05") for _ in range(40)]
    running = [asyncio.create_task(stream.run()) for stream in last]
    await asyncio.gather(*(stream.begun.wait() for stream in last))
    for number in range(4):
        await asyncio.to_thread(pods.leave, number)
    await asyncio.to_thread(eventually, lambda: listed(gateway, key) == {name: False}, "no pod is left", seconds=10)
    refused = await asyncio.to_thread(ask, gateway, key, "hello")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_ready")
    assert int(refused.headers["retry-after"]) > 0
    await asyncio.gather(*running)
    assert all(stream.whole and stream.tokens == 40 for stream in last)
    await asyncio.to_thread(eventually, lambda: connected(gateway, pods) == 0, "nothing is left open", seconds=60)
