"""The gateway as a process of this host, acting with the rights that the chart gives it, and people who have keys."""

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from moorage_gateway.keys import KEY_LABEL, new_key
from tests.support.api import Api
from tests.support.operator import KEYS

SECRETS = f"/api/v1/namespaces/{KEYS}/secrets"


@dataclass
class GatewayProcess:
    """A gateway that is ready."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int
    admin_port: int

    @property
    def url(self) -> str:
        """Where it serves clients."""
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def gateway_process(
    kubeconfig: Path, folder: Path, errors: Container[str] = (), **settings: str
) -> Iterator[GatewayProcess]:
    """Run a gateway until the end of the block; it is ready when that begins, and logs no error but `errors`."""
    with gateway_with({}, kubeconfig, folder, errors, **settings) as gateway:
        yield gateway


@contextmanager
def gateway_with(
    constants: Mapping[str, float], kubeconfig: Path, folder: Path, errors: Container[str] = (), **settings: str
) -> Iterator[GatewayProcess]:
    """Run one whose code has other `constants` (`module.NAME`): times for which a test would wait too long."""
    environment = {
        **{"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig)},
        **{"MOORAGE_GATEWAY_HOST": "127.0.0.1", "MOORAGE_GATEWAY_KEY_NAMESPACE": KEYS},
        **{"MOORAGE_GATEWAY_PORT": "0", "MOORAGE_GATEWAY_ADMIN_PORT": "0"},
        **settings,
    }
    log = folder / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *_program(constants)], env=environment, stdout=output, stderr=output, cwd="/"
        )
    try:
        gateway = _listening(process, log)
        yield gateway
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    told = [line for line in gateway.lines() if line["level"] == "error"]
    assert [line for line in told if line["message"] not in errors] == []


def _program(constants: Mapping[str, float]) -> list[str]:
    if not constants:
        return ["-m", "moorage_gateway"]
    lines = ["import importlib, runpy"]
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        lines.append(f"importlib.import_module('moorage_gateway.{module}').{constant} = {value}")
    return ["-c", "\n".join([*lines, "runpy.run_module('moorage_gateway', run_name='__main__')"])]


def _listening(process: "subprocess.Popen[bytes]", log: Path) -> GatewayProcess:
    deadline = time.monotonic() + 20
    while process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        told = [json.loads(line) for line in log.read_text().splitlines()]
        found = next((line for line in told if line["message"] == "listening"), None)
        if found is not None:
            url = f"http://127.0.0.1:{found['admin_port']}/readyz"
            if httpx.get(url, trust_env=False).status_code == 200:
                return GatewayProcess(process, log, found["port"], found["admin_port"])
        time.sleep(0.02)  # readiness is asked, as the kubelet does
    raise AssertionError(log.read_text())


def make_key(admin: Api, identity: str, path: str = SECRETS, **entries: str) -> str:
    """Make an API key as an administrator does, with a Secret at `path`; gives what its holder gets."""
    text, digest = new_key(identity)
    data = {name: b64encode(value.encode()).decode() for name, value in {"sha256": digest, **entries}.items()}
    body = {"metadata": {"name": f"key-{identity}", "labels": {KEY_LABEL: identity}}, "data": data}
    admin.request("POST", path, json=body)
    return text
