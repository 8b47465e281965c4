"""The bed of a scenario: a namespace, the operator behind the fault proxy, and the four invariants."""

import base64
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from hack.cluster.api import Cluster
from tests.chaos.pace import LIMIT, QUIET
from tests.chaos.report import Scenario
from tests.chaos.world import Expectation, World, orphans, serving
from tests.support.api import Api, Object
from tests.support.fault_proxy import FaultProxy
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.truth import Truth

SMALL = {"resources": {"cpu": "10m", "memory": "16Mi"}}


@dataclass
class Bed:
    """All that a scenario works with."""

    cluster: Cluster
    api: Api
    audit: Audit
    proxy: FaultProxy
    operator: OperatorProcess
    scenario: Scenario

    def __post_init__(self) -> None:
        self._began = self.audit.position()
        self.truth = Truth(self.api)

    def create(self, name: str = "tiny", **spec: object) -> Object:
        """A small model."""
        return self.api.create(model(name, **{**SMALL, **spec}))

    def edit(self, name: str = "tiny", **spec: object) -> Object:
        """Change the spec of a model."""
        return self.api.patch("InferenceModel", name, {"spec": spec})

    def converges(
        self, within: float = LIMIT, *, to: Expectation = serving, since: float | None = None, runs: int = 1
    ) -> float:
        """Wait until all is as the specs say and every status is true; counts as runs, that begin `since` or now."""
        began = time.monotonic() if since is None else since
        self.settles(began + within - time.monotonic(), to=to)
        seconds = time.monotonic() - began
        self.scenario.converged(seconds, runs)
        return seconds

    def settles(self, within: float = 60, *, to: Expectation = serving) -> None:
        """The same, as a preparation: it does not count."""
        self.wait_until(lambda world: self.wrong(world, to), within)

    def wait_until(self, problems: Callable[[World], list[str]], within: float) -> None:
        """Wait until nothing is wrong with the namespace any more."""
        deadline = time.monotonic() + within
        while found := problems(world := World.of(self.api)):
            briefly = "; ".join(problem[:300] for problem in found[:10])
            assert time.monotonic() < deadline, f"after {within:.0f} s: {briefly}"
            # Most things end with a change of a status; what does not is seen after a second.
            self.api.wait_for_change("InferenceModel", world.version, seconds=1)

    def invariants_hold(self, to: Expectation = serving) -> None:
        """The four invariants, and that the operator lives."""
        self.is_still()
        assert self.writes(self._began), "the audit log does not show the operator at all"
        assert self.wrong(World.of(self.api), to) == []
        assert self.operator.errors() == []
        assert self.operator.is_alive()

    def is_still(self, seconds: float = QUIET) -> None:
        """Nothing is written any more: the second invariant."""
        start = self.audit.position()
        # What is measured is that nothing happens, so there is nothing to wait for.
        time.sleep(seconds)
        assert self.writes(start) == [], "writes after quiescence"

    def wrong(self, world: World, to: Expectation = serving) -> list[str]:
        """Why the world has not converged; what is cheap to see comes first."""
        unfinished = [f"{m['metadata']['name']} is {m.get('status')}" for m in world.models if not to(m)]
        return unfinished or orphans(world) or [str(falsehood) for falsehood in self.truth.check()]

    def writes(self, since: int) -> list[str]:
        """What the operator has written to this namespace."""
        writes = self.audit.writes(since)
        return described([write for write in writes if write["objectRef"].get("namespace") == self.api.namespace])

    def restart(self) -> None:
        """End the operator as a crash does and start it again."""
        self.operator.kill()
        self.operator.start()

    def memory(self) -> int:
        """Bytes of memory that the operator holds."""
        assert self.operator.process is not None
        resident: int = psutil.Process(self.operator.process.pid).memory_info().rss
        return resident


def proxy_of(cluster: Cluster) -> FaultProxy:
    """A fault proxy before the API server of `cluster`."""
    entry = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    # The authority only: with a certificate of its own, the proxy would lend its rights to whoever comes.
    authority = base64.b64decode(entry["certificate-authority-data"]).decode()
    return FaultProxy(entry["server"], ssl.create_default_context(cadata=authority))


def kubeconfig_through(proxy: FaultProxy, kubeconfig: Path, path: Path) -> Path:
    """A copy of `kubeconfig` whose server is the proxy."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": proxy.url}
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path
