"""Who gets the GPUs: the examples of docs/preemption.md, and pods that really run and finish their requests."""

import re
import subprocess

import pytest

from hack import transcript
from hack.cluster.api import Cluster
from tests.support.api import Api, condition, is_ready, reason
from tests.support.models import model
from tests.truth import Truth

Row = dict[str, str]
Tables = dict[str, dict[str, Row]]
SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024}
SERVES = {"READY": "True", "STATUS": "Serving", "QUEUE": "", "PREEMPTED-BY": ""}


def table(text: str) -> dict[str, Row]:
    """The rows of the last table that kubectl printed, by the name of the model."""
    lines = text[text.rindex("NAMESPACE ") :].splitlines() if "NAMESPACE " in text else []
    if not lines:
        return {}
    columns = list(re.finditer(r"\S+ *", lines[0]))
    rows = [
        {column.group().strip(): line[column.start() : column.end()].strip() for column in columns}
        for line in lines[1:]
        if line
    ]
    return {row["NAME"]: row for row in rows}


def test_kubectl_get_im_alone_shows_what_happened(stage: transcript.Stage, admin: Api) -> None:
    tables, texts = {}, {}
    with Truth(admin, namespaces=transcript.TEAMS) as truth:
        for name, text in transcript.examples(stage):
            print(f"--- {name}\n{text}")
            truth.hold()
            tables[name], texts[name] = table(text), text
        truth.kept()
    # The page has the same examples.
    transcript.written(transcript.PAGE.read_text(encoding="utf-8"), texts)
    _the_example_of_a_preemption(tables, texts["events"])
    _the_example_of_replicas(tables, texts["room"])


def _the_example_of_a_preemption(tables: Tables, told: str) -> None:
    low = transcript.LOW
    assert all(tables["full"][name].items() >= SERVES.items() for name in low)
    preempted = tables["preempted"]
    (victim,) = (name for name in low if preempted[name]["READY"] == "False")
    assert preempted["big"].items() >= SERVES.items()
    waits = {"STATUS": "WaitingForGPU", "REPLICAS": "0/1", "PREEMPTED-BY": "team-b/big"}
    assert preempted[victim].items() >= {**waits, "QUEUE": "1/1"}.items()
    assert all(preempted[name].items() >= SERVES.items() for name in low if name != victim)
    assert "was preempted by team-b/big on node gpu-node at " in told
    assert told.count("was preempted by team-b/big on node gpu-node") == 2, "the Event"
    queue = tables["queue"]
    assert {name: queue[name]["QUEUE"] for name in (victim, "later", "batch")} == {
        victim: "1/3",
        "later": "2/3",
        "batch": "3/3",
    }
    back = tables["back"]
    assert "big" not in back
    assert back[victim].items() >= SERVES.items()
    assert [back[name]["QUEUE"] for name in ("later", "batch")] == ["1/2", "2/2"]
    suspended = tables["suspended"]
    assert sum(row["STATUS"] == "Stopped" and row["REPLICAS"] == "0/0" for row in suspended.values()) == 1
    assert suspended["later"].items() >= SERVES.items()


def _the_example_of_replicas(tables: Tables, room: str) -> None:
    lost = {"READY": "True", "STATUS": "Serving", "REPLICAS": "1/3", "QUEUE": "1/1", "PREEMPTED-BY": "team-b/big"}
    assert tables["replicas"]["pool"].items() >= lost.items()
    assert tables["replicas"]["solo"].items() >= SERVES.items()
    assert tables["replicas"]["big"].items() >= SERVES.items()
    back = tables["replicas-back"]
    assert back["pool"].items() >= {**SERVES, "REPLICAS": "3/3"}.items()
    assert "the model is unavailable until the new pod is ready" in room


@pytest.mark.timeout(240)
def test_a_victim_finishes_its_requests_and_comes_back(
    accelerator: str, gpu_cluster: Cluster, api: Api, truth: Truth
) -> None:
    gpu = {"gpu": {"count": 1, "resourceName": accelerator}}
    api.create(model("low", priority=3, **gpu, **SMALL))
    api.wait("InferenceModel", "low", is_ready, what="Ready", seconds=60)
    truth.hold()
    request = Request(gpu_cluster, api, api.find("Pod")[0]["metadata"]["name"])
    assert request.begins()

    api.create(model("high", priority=8, **gpu, **SMALL))
    by = f"{api.namespace}/high"
    told = api.wait("InferenceModel", "low", lambda im: (im or {})["status"].get("preemptedBy") == by, what="told")
    assert condition(told, "Preempted")["status"] == "True"
    assert request.is_running()
    cleared = api.wait(
        "InferenceModel", "high", lambda im: "preempting pods on node" in message(im), what="preempting pods"
    )
    assert reason(cleared) == "WaitingForGPU"
    seen = api.wait("InferenceModel", "low", lambda im: not is_ready(im), what="not Ready")
    assert reason(seen, "ModelLoaded") in {"Stopping", "Unloaded"}
    truth.hold()
    assert request.rest()[-1] == "data: [DONE]", "the request was cut off"
    api.wait("InferenceModel", "high", is_ready, what="high is Ready", seconds=60)
    truth.hold()

    api.delete("InferenceModel", "high")
    back = api.wait("InferenceModel", "low", is_ready, what="low is Ready again", seconds=90)
    assert reason(back, "Preempted") == "Recovered"
    truth.hold()
    truth.kept()


def message(obj: object) -> str:
    """What Ready says."""
    return str(condition(obj if isinstance(obj, dict) else None, "Ready").get("message", ""))


class Request:
    """A long answer that is streamed to a client inside the pod, where a Service that sends no more is no matter."""

    PROGRAM = """
import json, urllib.request
body = {"model": "low", "prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "stream": True}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=60) as answer:
    for line in answer:
        if line.strip():
            print(line.decode().strip(), flush=True)
"""

    def __init__(self, cluster: Cluster, api: Api, pod: str) -> None:
        command = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}", "-n", api.namespace]
        self._client = subprocess.Popen(
            [*command, "exec", pod, "--", "python3", "-c", self.PROGRAM], stdout=subprocess.PIPE, text=True
        )
        assert self._client.stdout is not None
        self._lines = self._client.stdout

    def begins(self) -> bool:
        """Waits for the first piece of the answer."""
        return self._lines.readline().startswith("data: ")

    def is_running(self) -> bool:
        """Whether the answer has not come to its end."""
        return self._client.poll() is None

    def rest(self) -> list[str]:
        """Waits for the end of the answer."""
        lines = self._lines.read().splitlines()
        self._lines.close()
        self._client.wait(30)
        return lines
