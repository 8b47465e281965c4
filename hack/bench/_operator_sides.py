"""The processes that the operator's benchmark compares: our operator, a minimal one on kopf and a bare loop."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from hack.bench._harness import cpu_seconds, rss_bytes
from hack.cluster.api import Cluster
from tests.support.operator import IMAGES, NAMESPACE, USER, OperatorProcess, kubeconfig_of, kubectl

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


class Side(Protocol):
    """One of them; `user` is whom it acts as."""

    name: str
    user: str

    def start(self) -> float:
        """Start it and wait until it works; give the seconds that took."""

    def stop(self) -> None:
        """End it."""

    def ended(self) -> str:
        """What it said last, if it has ended by itself; else nothing."""

    @property
    def pid(self) -> int:
        """Its process id."""


class Ours:
    """The operator as tests run it: the rights that the chart gives it, pods not asked as they have no address."""

    name = "ours"
    user = USER

    def __init__(self, kubeconfig: Path, log: Path, **settings: str) -> None:
        self.process = OperatorProcess(kubeconfig, log, **settings)

    def start(self) -> float:
        try:
            return self.process.start()
        except BaseException:
            self.process.kill()
            raise

    def stop(self) -> None:
        self.process.stop()

    def ended(self) -> str:
        process = self.process.process
        return _last_words(self.process.log) if process and process.poll() is not None else ""

    @property
    def pid(self) -> int:
        assert self.process.process is not None, "not started"
        return self.process.process.pid


class Reference:
    """A module of `hack.bench` as a process, which says "ready" once it works."""

    def __init__(self, name: str, user: str, kubeconfig: Path, log: Path, *command: str) -> None:
        self.name, self.user = name, user
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHONDONT")}
        self._environment = {**inherited, "KUBECONFIG": str(kubeconfig), "MOORAGE_IMAGES": json.dumps(IMAGES)}
        self._command, self._log = [sys.executable, "-m", *command], log
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == "ready\n", f"{self.name} has ended:\n{self._log.read_text()[-3000:]}"
        return time.monotonic() - began

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def ended(self) -> str:
        return _last_words(self._log) if self._process and self._process.poll() is not None else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid


def bare_loop(kubeconfig: Path, log: Path) -> Reference:
    """`hack.bench.bare_operator` with the rights of ours."""
    return Reference("bare", USER, kubeconfig, log, "hack.bench.bare_operator")


def kopf_operator(cluster: Cluster, folder: Path) -> Reference:
    """`hack.bench.kopf_operator`, run as kopf's documentation says; kopf wants rights that ours does without."""
    account = "bench-kopf"
    kubectl(cluster, "-n", NAMESPACE, "create", "serviceaccount", account)
    binding = ("create", "clusterrolebinding", account, "--clusterrole=cluster-admin")
    kubectl(cluster, *binding, f"--serviceaccount={NAMESPACE}:{account}")
    kubeconfig = kubeconfig_of(cluster, folder / "kopf-kubeconfig", account)
    command = ("kopf", "run", "--module", "hack.bench.kopf_operator", "--all-namespaces", "--standalone")
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    return Reference("kopf_operator", user, kubeconfig, folder / "kopf.log", *command)


async def guard(side: Side) -> None:
    """Raise as soon as it has ended by itself: nothing that is waited for would come."""
    while not (words := side.ended()):  # noqa: ASYNC110 - a process of subprocess tells nobody that it ends
        await asyncio.sleep(1)
    raise RuntimeError(f"{side.name} has ended:\n{words}")


def _last_words(log: Path) -> str:
    return log.read_text()[-3000:] or "(without a word)"


def cpu_of(side: Side) -> float:
    """CPU seconds that it has used."""
    return cpu_seconds(side.pid, children=True)


def rss_mb_of(side: Side) -> float:
    """Its resident memory in MB (10⁶ bytes)."""
    return rss_bytes(side.pid, children=True) / 1e6


async def wait_until_idle(side: Side, *, at_most: float = 60) -> None:
    """Return when it has used less than a tenth of a core for two seconds."""
    deadline = time.monotonic() + at_most
    while time.monotonic() < deadline:
        before = cpu_of(side)
        await asyncio.sleep(2)
        if cpu_of(side) - before < 0.2:
            return
