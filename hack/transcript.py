"""`python -m hack.transcript`: runs the examples of docs/preemption.md on a real cluster and writes kubectl's output.

The operator is installed by helm, as users do it; the GPUs are those of a fake node, where pods are only said to run.
tests/e2e/preemption runs the same examples and checks every step.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from hack import demo
from hack.cluster.api import Cluster, ClusterOptions, down, load_images, up
from hack.cluster.errors import ClusterError
from hack.images.api import Image, build_all
from hack.images.errors import ImageError

PAGE: Final = demo.ROOT / "docs" / "preemption.md"
CLUSTER: Final = "transcript"
NODE: Final = "gpu-node"
GPUS: Final = 8
TEAMS: Final = ("team-a", "team-b")
LOW: Final = ("chat", "code", "mail", "notes")
SECONDS: Final = 60.0
_BLOCK: Final = re.compile(r"(<!-- transcript: (?P<name>[a-z-]+) -->\n```\n).*?(```\n)", re.DOTALL)

Model = dict[str, Any]
Models = dict[str, Model]


class Stage:
    """Two teams' namespaces on a cluster, and a user with kubectl whose commands and their answers are kept."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._lines: list[str] = []

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints."""
        cache = self._cluster.kubeconfig.parent / "kubectl-cache"
        command = [str(self._cluster.kubectl), f"--kubeconfig={self._cluster.kubeconfig}", f"--cache-dir={cache}"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self._folder,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def show(self, *arguments: str) -> None:
        """Runs a command that the reader sees, with its answer."""
        answer = self.kubectl(*arguments)
        shown = [argument if re.fullmatch(r"[\w./:=,-]+", argument) else f"'{argument}'" for argument in arguments]
        self._lines += [f"$ kubectl {' '.join(shown)}", *answer.rstrip("\n").splitlines(), ""]

    def apply(self, namespace: str, file: str, *models: Model) -> None:
        """Applies models from a file of that name."""
        (self._folder / file).write_text(yaml.safe_dump_all(models, sort_keys=False), encoding="utf-8")
        self.show("-n", namespace, "apply", "-f", file)

    def until(self, what: str, holds: Callable[[Models], object]) -> Models:
        """All models of both teams, by name, once this holds for them."""
        deadline = time.monotonic() + SECONDS
        while True:
            found = json.loads(self.kubectl("get", "im", "-A", "-o", "json"))["items"]
            models = {one["metadata"]["name"]: one for one in found if one["metadata"]["namespace"] in TEAMS}
            if holds(models):
                return models
            if time.monotonic() > deadline:
                raise RuntimeError(f"after {SECONDS:.0f} s still not: {what}\n{self.kubectl('get', 'im', '-A')}")
            time.sleep(0.2)

    def take(self) -> str:
        """What the reader has seen since this was last asked."""
        lines, self._lines = self._lines, []
        return "\n".join(lines).rstrip("\n") + "\n"


def model(name: str, gpus: int, priority: int, **spec: Any) -> Model:
    """An InferenceModel of an example."""
    source = {"uri": "oci://localhost/models/smollm2:135m-q4"}
    fields = {"framework": "llamacpp", "source": source, "gpu": {"count": gpus}, "priority": priority, **spec}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": fields,
    }


def is_ready(model: Model | None, replicas: int = 1) -> bool:
    """Whether so many replicas answer."""
    return model is not None and model.get("status", {}).get("readyReplicas") == replicas


def preempted_by(models: Models, preemptor: str) -> list[str]:
    """The models that `preemptor` has preempted."""
    return [name for name, model in models.items() if model.get("status", {}).get("preemptedBy") == preemptor]


def queue_summary(model: Model | None) -> str:
    """The queue position."""
    return str((model or {}).get("status", {}).get("queue", {}).get("summary", ""))


def queues(models: Models) -> dict[str, str]:
    """The queue positions of the models that wait."""
    return {name: summary for name, model in models.items() if (summary := queue_summary(model))}


def examples(stage: Stage) -> Iterator[tuple[str, str]]:
    """Runs all examples; yields after each step, when everything has settled, its name and what the reader sees."""
    yield from _one_preempts_another(stage)
    for namespace in TEAMS:
        stage.kubectl("-n", namespace, "delete", "im", "--all")
    stage.until("all are gone", lambda found: not found)
    yield from _replicas_before_service(stage)


def _one_preempts_another(stage: Stage) -> Iterator[tuple[str, str]]:
    stage.apply("team-a", "low.yaml", *(model(name, 2, 3) for name in LOW))
    stage.until("four serve", lambda found: all(is_ready(found.get(name)) for name in LOW))
    yield from _table(stage, "full")

    stage.apply("team-b", "big.yaml", model("big", 2, 8))
    stage.show("-n", "team-b", "wait", "--for=condition=Ready", "im/big", "--timeout=60s")
    victim = _victim(stage.until("one is preempted and in the queue", _has_victim_in_queue))
    yield from _table(stage, "preempted")

    message = '{.status.conditions[?(@.type=="Preempted")].message}'
    stage.show("-n", "team-a", "get", "im", victim, "-o", f'jsonpath={message}{{"\\n"}}')
    selected = f"involvedObject.kind=InferenceModel,involvedObject.name={victim}"
    stage.show("-n", "team-a", "get", "events", "--field-selector", selected)
    yield "events", stage.take()

    stage.apply("team-b", "more.yaml", model("batch", 2, 1), model("later", 2, 2))
    expected = {victim: "1/3", "later": "2/3", "batch": "3/3"}
    stage.until("three in the queue", lambda found: queues(found) == expected)
    yield from _table(stage, "queue")

    stage.show("-n", "team-b", "delete", "im", "big")
    stage.until("the victim is back", lambda found: is_ready(found[victim]) and queue_summary(found["batch"]) == "2/2")
    yield from _table(stage, "back")

    suspended = next(name for name in LOW if name != victim)
    stage.show("-n", "team-a", "patch", "im", suspended, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    stage.until("the next runs", lambda found: is_ready(found["later"]) and queue_summary(found["batch"]) == "1/1")
    yield from _table(stage, "suspended")


def _has_victim_in_queue(models: Models) -> bool:
    # The preemptor leaves the queue a moment later than it is ready.
    return bool(preempted_by(models, "team-b/big")) and queue_summary(models[_victim(models)]) == "1/1"


def _victim(models: Models) -> str:
    return preempted_by(models, "team-b/big")[0]


def _replicas_before_service(stage: Stage) -> Iterator[tuple[str, str]]:
    stage.apply("team-a", "pool.yaml", model("pool", 2, 3, replicas=3), model("solo", 2, 3))
    stage.until("all serve", lambda found: is_ready(found.get("pool"), 3) and is_ready(found.get("solo")))
    budget = "jsonpath={.status.disruptionsAllowed}=2"
    stage.kubectl("-n", "team-a", "wait", f"--for={budget}", "pdb/pool", "--timeout=30s")
    stage.apply("team-b", "big.yaml", model("big", 4, 8))
    stage.until("pool gave two", lambda found: is_ready(found.get("big")) and queue_summary(found["pool"]) == "1/1")
    yield from _table(stage, "replicas")

    stage.show("-n", "team-b", "delete", "im", "big")
    stage.until("pool is back", lambda found: is_ready(found["pool"], 3) and is_ready(found["solo"]))
    yield from _table(stage, "replicas-back")

    stage.show("-n", "team-a", "patch", "im", "solo", "--type=merge", "-p", '{"spec":{"maxConcurrency":8}}')
    progressing = '{.status.conditions[?(@.type=="Progressing")]'
    # In one command: a moment later there is room, and another message.
    message = f'jsonpath={progressing}.message}}{{"\\n"}}'
    stage.show("-n", "team-a", "wait", f"--for=jsonpath={progressing}.reason}}=MakingRoom", "im/solo", "-o", message)
    stage.show("-n", "team-a", "wait", f"--for=jsonpath={progressing}.reason}}=Complete", "im/solo")
    yield "room", stage.take()


def _table(stage: Stage, name: str) -> Iterator[tuple[str, str]]:
    stage.show("get", "im", "-A")
    yield name, stage.take()


@contextmanager
def theatre(cluster: Cluster) -> Iterator[Stage]:
    """A fake node with eight GPUs and the two namespaces, with Pod Security `restricted`; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _on_stage(cluster, Stage(cluster, Path(folder)))


def _on_stage(cluster: Cluster, stage: Stage) -> Iterator[Stage]:
    cluster.add_fake_node(NODE, GPUS)
    try:
        for namespace in TEAMS:
            stage.kubectl("create", "namespace", namespace)
            stage.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        yield stage
    finally:
        stage.kubectl("delete", "namespace", *TEAMS, "--ignore-not-found")
        stage.kubectl("delete", "node", NODE)


def gpu_image(images: Mapping[str, Image]) -> Sequence[str]:
    """What helm needs beside: an image for GPUs. That of CPUs will do where no GPU is real."""
    return ("--set-string", f"runtime.images.llamacpp/gpu={images['runtime'].reference}")


def written(page: str, blocks: Mapping[str, str]) -> str:
    """The page with the blocks put in at their marks; raises KeyError for a mark without a block, or the reverse.

    >>> written("<!-- transcript: x -->\\n```\\nold\\n```\\n", {"x": "new\\n"})
    '<!-- transcript: x -->\\n```\\nnew\\n```\\n'
    """
    marks = {found["name"] for found in _BLOCK.finditer(page)}
    if missing := marks ^ blocks.keys():
        raise KeyError(f"either the page or the examples lack {', '.join(sorted(missing))}")
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found['name']]}{found[3]}", page)


def main() -> int:
    """Runs the examples on a cluster of its own, and writes the page."""
    try:
        images = build_all()
        cluster = up(ClusterOptions(CLUSTER))
        load_images(cluster.options.name, [image.archive for image in images.values()])
        demo.install(cluster, images, *gpu_image(images))
        with theatre(cluster) as stage:
            blocks = {}
            for name, text in examples(stage):
                print(f"--- {name}\n{text}", flush=True)
                blocks[name] = text
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    except (ClusterError, ImageError, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    finally:
        down(CLUSTER)
    print(f"wrote {PAGE.relative_to(demo.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
