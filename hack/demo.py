"""`make demo`: from nothing to a model's answer, with a real cluster, a real model and the commands of a user.

Each step prints the command that it runs, so that what is seen here can be typed elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.cluster.api import Cluster, ClusterOptions, load_images, up
from hack.cluster.errors import ClusterError
from hack.cluster.options import DEFAULT_NAME
from hack.images.api import Image, build_all
from hack.images.errors import ImageError

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "moorage-system"
EXAMPLE = ROOT / "examples" / "smollm2.yaml"
RUNTIMES = {"llamacpp/cpu": "runtime", "transformers/cpu": "runtime-transformers", "vllm/cpu": "runtime-vllm-cpu"}
"""Images by the chart's names for them."""

QUESTION = "What is the opposite of hot?"
PROMPT = "The capital of France is"

# Runs in a pod of its own, so it takes the way of every client in the cluster: DNS, Service, pod.
_ASK = """
import json, sys, urllib.request
url, body = sys.argv[1], sys.argv[2].encode()
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@dataclass
class Demo:
    """The demo's steps on a cluster of that name; `seconds` says how long each took."""

    cluster: str = DEFAULT_NAME
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """All of it; raises CalledProcessError when a command fails."""
        with self._timed("images"):
            images = build_all()
        with self._timed("cluster"):
            cluster = up(ClusterOptions(self.cluster))
        with self._timed("load images"):
            load_images(cluster.options.name, [image.archive for image in images.values()])
        with self._timed("install"):
            install(cluster, images)
        with self._timed("apply to Ready"):
            _kubectl(cluster, "apply", "-f", str(EXAMPLE))
            _kubectl(cluster, "wait", "--for=condition=Ready", "im/smollm2", "--timeout=300s")
        _kubectl(cluster, "get", "im", "-o", "wide")
        with self._timed("ask"):
            self._ask(cluster, images["runtime"].reference)

    def _ask(self, cluster: Cluster, image: str) -> None:
        base = _kubectl(cluster, "get", "im", "smollm2", "-o", "jsonpath={.status.url}", quiet=True)
        sampling = {"model": "smollm2", "temperature": 0, "stop": ["\n", ". "]}
        chat = {**sampling, "max_tokens": 40, "messages": [{"role": "user", "content": QUESTION}]}
        answer = ask(cluster, image, f"{base}/chat/completions", chat)
        print(f"\n  question: {QUESTION}\n  SmolLM2:  {answer['choices'][0]['message']['content'].strip()}")
        completion = {**sampling, "max_tokens": 6, "prompt": PROMPT}
        answer = ask(cluster, image, f"{base}/completions", completion)
        print(f"\n  prompt:   {PROMPT}\n  SmolLM2: {answer['choices'][0]['text'].rstrip()}\n")

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


def install(cluster: Cluster, images: dict[str, Image], *extra: str) -> None:
    """Installs the chart with the images that were built here, and waits until the operator is ready."""
    repository, _, tag = images["operator"].reference.rpartition(":")
    command = [
        *(str(cluster.helm), "upgrade", "--install", "moorage", str(ROOT / "charts" / "moorage")),
        *("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s"),
        *("--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}", "--set", "clusterWide=true"),
        *(
            word
            for key, name in RUNTIMES.items()
            if name in images
            for word in ("--set-string", f"runtime.images.{key}={images[name].reference}")
        ),
        *extra,
    ]
    _run(cluster, command)


def ask(cluster: Cluster, image: str, url: str, body: dict[str, object]) -> dict[str, Any]:
    """The JSON that a pod of `image` gets when it posts `body` to `url`."""
    name = f"ask-{time.monotonic_ns() % 10**9}"
    text = _kubectl(
        cluster,
        *("run", name, f"--image={image}", "--image-pull-policy=IfNotPresent", "--restart=Never", "--rm", "--attach"),
        *("--quiet", "--command", "--", "python3", "-c", _ASK, url, json.dumps(body)),
        quiet=True,
    )
    answer: dict[str, Any] = json.loads(text)
    return answer


def _kubectl(cluster: Cluster, *args: str, quiet: bool = False) -> str:
    return _run(cluster, [str(cluster.kubectl), *args], quiet=quiet)


def _run(cluster: Cluster, command: list[str], *, quiet: bool = False) -> str:
    if not quiet:
        print(f"\n$ {Path(command[0]).name} {' '.join(command[1:])}", flush=True)
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": "/usr/bin:/bin",
        "HOME": str(cluster.kubeconfig.parent),
    }
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if not quiet or done.returncode:
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        sys.stderr.flush()
    done.check_returncode()
    return done.stdout


def main() -> int:
    """Runs the demo; leaves the cluster running and says how to use it and how to end it."""
    demo = Demo()
    began = time.monotonic()
    try:
        demo.run()
    except (ClusterError, ImageError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"\nthe demo failed: {Path(error.cmd[0]).name} ended with {error.returncode}", file=sys.stderr)
        return 1
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in demo.seconds.items())
    print(f"From nothing to the answer in {time.monotonic() - began:.1f} s ({took}).")
    print("The cluster is still there:\n  export KUBECONFIG=$(.venv/bin/python -m hack.cluster kubeconfig)")
    print("  kubectl get im        # and when you are done: make cluster-down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
