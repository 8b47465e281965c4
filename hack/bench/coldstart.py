"""`python -m hack.bench.coldstart`: how soon things are there, with binaries and images cached.

The demo from nothing to the answer, a model from apply to Ready, a control plane, and the operator's own start, on
clusters of its own, of which it leaves none behind.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from hack.bench._harness import machine, print_table, report, rss_bytes
from hack.cluster.api import Cluster, ClusterOptions, down, up
from hack.cluster.toolchain.catalog import KUBERNETES_VERSION
from hack.demo import EXAMPLE, Demo
from tests.support.api import Api, is_ready
from tests.support.operator import OperatorProcess, install, kubeconfig_of, kubectl

DEMO = "bench-demo"
CONTROL_PLANE = "bench"
GOALS = {"demo_warm_s": 90.0, "apply_to_ready_s": 8.0, "control_plane_s": 10.0, "operator_ready_s": 2.0}
OPERATOR_RSS_GOAL_MB = 80.0


def demo_seconds() -> float:
    """The whole demo, from no cluster to the printed answer."""
    down(DEMO)
    began = time.monotonic()
    Demo(DEMO).run()
    return time.monotonic() - began


def apply_to_ready(cluster: Cluster, times: int = 5) -> list[float]:
    """A model that is deleted, and gone with all its pods, is applied again."""
    api = Api(cluster.kubeconfig)
    seconds = []
    for _ in range(times):
        api.delete("InferenceModel", "smollm2")
        for pod in api.find("Pod", "moorage.dev/model=smollm2"):
            api.wait("Pod", pod["metadata"]["name"], lambda found: found is None, what="the pod is gone", seconds=60)
        began = time.monotonic()
        kubectl(cluster, "apply", "-f", str(EXAMPLE))
        api.wait("InferenceModel", "smollm2", is_ready, what="Ready", seconds=60)
        seconds.append(time.monotonic() - began)
    api.close()
    return seconds


def control_plane(times: int = 3) -> tuple[Cluster, list[float]]:
    """An API with scheduler and controllers, without a node; the last one stays."""
    seconds = []
    for _ in range(times):
        down(CONTROL_PLANE)
        began = time.monotonic()
        cluster = up(ClusterOptions(CONTROL_PLANE, control_plane_only=True))
        seconds.append(time.monotonic() - began)
    return cluster, seconds


def operator_start(cluster: Cluster, times: int = 7) -> tuple[list[float], float]:
    """Seconds from the start of the process to its readiness, and its memory then in MB."""
    install(cluster)
    seconds, memory = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = kubeconfig_of(cluster, Path(folder) / "kubeconfig")
        for _ in range(times):
            process = OperatorProcess(kubeconfig, Path(folder) / "log")
            seconds.append(process.start())
            assert process.process is not None
            memory = rss_bytes(process.process.pid) / 2**20
            process.stop()
    return seconds, memory


def git_revision() -> str:
    """The commit that is measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    """Measures everything in turn and prints table and JSON."""
    print(machine())
    values = {"demo_warm_s": round(demo_seconds(), 1)}
    try:
        values["apply_to_ready_s"] = round(statistics.median(apply_to_ready(up(ClusterOptions(DEMO)))), 2)
    finally:
        down(DEMO)
    try:
        cluster, seconds = control_plane()
        values["control_plane_s"] = round(statistics.median(seconds), 1)
        starts, memory = operator_start(cluster)
        values["operator_ready_s"] = round(statistics.median(starts), 2)
    finally:
        down(CONTROL_PLANE)
    rows = [(name, value, f"<= {GOALS[name]}", value <= GOALS[name]) for name, value in values.items()]
    rows.append(("operator RSS, MB", round(memory, 1), f"<= {OPERATOR_RSS_GOAL_MB}", memory <= OPERATOR_RSS_GOAL_MB))
    print_table(("figure", "median", "goal", "met"), [(*row[:3], "yes" if row[3] else "NO") for row in rows])
    notes = {"operator_ready_s": f"RSS at readiness {memory:.1f} MB; load at the end {os.getloadavg()[0]:.1f}"}
    versions = {"moorage": git_revision(), "kubernetes": KUBERNETES_VERSION}
    report("coldstart", values, versions, notes)


if __name__ == "__main__":
    main()
