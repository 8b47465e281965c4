"""The process as a whole: facts, crashes, signals, and ends with their reasons."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from moorage_common.facts import LoadError, Termination
from tests.integration.runtime.conftest import Runtime, runtime_process, start
from tests.support.waiting import eventually


def engine_of(runtime: Runtime) -> psutil.Process:
    """Give the engine's process."""
    (engine,) = psutil.Process(runtime.process.pid).children()
    return engine


def test_the_facts_are_those_of_the_file(runtime: Runtime, smollm2: Path) -> None:
    health = runtime.health()

    facts = health["facts"]
    assert health["status"] == "ready"
    assert (facts["engine"], facts["quantization"], facts["contextLength"]) == ("llama.cpp", "q4_1", 1024)
    assert facts["engineVersion"]
    assert 0.9 * smollm2.stat().st_size < facts["weightsBytes"] < smollm2.stat().st_size
    assert facts["memoryBytes"] > facts["weightsBytes"]
    assert health["requestedQuantization"] == "q4_1"


def test_the_front_imports_neither_engine_nor_numpy(runtime: Runtime) -> None:
    maps = Path(f"/proc/{runtime.process.pid}/maps").read_text()

    assert "uvloop" in maps
    assert [name for name in ("xllamacpp", "torch", "numpy", "pydantic") if name in maps] == []


def test_every_line_of_the_log_is_json(runtime: Runtime) -> None:
    assert {"settings", "listening"} <= {line["message"] for line in runtime.lines()}


def test_a_client_that_leaves_frees_its_slot(runtime: Runtime) -> None:
    body = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 900, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{runtime.url}/v1/completions", json=body) as response:
        lines = response.iter_lines()  # kept: its end would close the stream
        next(lines)
        assert runtime.health()["inFlight"] == 1
    left = time.monotonic()

    eventually(lambda: runtime.health()["inFlight"] == 0)
    engine = engine_of(runtime)
    busy = engine.cpu_times().user

    def idle() -> bool:
        nonlocal busy
        before, busy = busy, engine.cpu_times().user
        return busy == before

    eventually(idle, seconds=5)
    assert time.monotonic() - left < 2


def test_a_killed_engine_comes_back(smollm2: Path, tmp_path: Path) -> None:
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2), MODEL_NAME="m") as runtime:
        runtime.wait_ready()
        body = {"model": "m", "prompt": "Once upon a time", "max_tokens": 500, "stream": True, "ignore_eos": True}
        lines = []
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{runtime.url}/v1/completions", json=body) as response,
        ):
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) == 3:
                    engine_of(runtime).kill()
                    killed = time.monotonic()

        assert time.monotonic() - killed < 2
        assert json.loads([line for line in lines if line][-1].removeprefix("data: "))["error"]["code"] == "engine_gone"
        eventually(lambda: runtime.health()["engineRestarts"] == 1)
        runtime.wait_ready()
        answer = httpx.post(f"{runtime.url}/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 1})
        assert answer.status_code == 200


def test_a_stopped_engine_is_seen_within_two_seconds_and_a_long_prompt_is_not(smollm2: Path, tmp_path: Path) -> None:
    settings = {"MODEL_NAME": "m", "LLAMA_THREADS": "1", "MAX_INPUT_TOKENS": "2048"}
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2), **settings) as runtime:
        runtime.wait_ready()
        # Seconds without a byte: the prompt is read.
        body = {"model": "m", "prompt": "hello world " * 700, "max_tokens": 300, "stream": True, "ignore_eos": True}
        lines = []
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{runtime.url}/v1/completions", json=body, timeout=60) as response,
        ):
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) == 3:
                    engine_of(runtime).suspend()
                    stopped = time.monotonic()

        assert time.monotonic() - stopped < 2
        assert json.loads([line for line in lines if line][-1].removeprefix("data: "))["error"]["code"] == "engine_gone"
        eventually(lambda: runtime.health()["engineRestarts"] == 1)  # the prompt was no reason
        runtime.wait_ready()


def test_no_engine_outlives_a_killed_front(smollm2: Path, tmp_path: Path) -> None:
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2)) as runtime:
        runtime.wait_ready()
        engine = engine_of(runtime)

        runtime.process.send_signal(signal.SIGKILL)

        psutil.wait_procs([engine], timeout=5)
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def resident(process: psutil.Process) -> int:
    """Memory of a process and all below it."""
    found = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return found


def test_an_unloaded_model_gives_its_memory_back(smollm2: Path, tmp_path: Path) -> None:
    idle = {"MODEL_UNLOAD_ENABLED": "true", "MODEL_IDLE_TIMEOUT": "1"}
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2), MODEL_NAME="m", LLAMA_THREADS="1", **idle) as runtime:
        runtime.wait_ready()
        body = {"model": "m", "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
        assert httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60).status_code == 200
        process = psutil.Process(runtime.process.pid)
        loaded, engine = resident(process), resident(engine_of(runtime))

        eventually(lambda: not process.children())
        unloaded = resident(process)
        with_model = (
            f"{loaded >> 20} MiB with the model ({engine >> 20} of them the engine's), {unloaded >> 20} without"
        )
        assert loaded - unloaded > 0.9 * engine, with_model
        print(with_model)
        assert httpx.get(f"{runtime.url}/health/ready").status_code == 200

        answer = httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60)
        assert "Paris" in answer.json()["choices"][0]["text"]


def test_sigterm_lets_a_stream_finish(smollm2: Path, tmp_path: Path) -> None:
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2), MODEL_NAME="m") as runtime:
        runtime.wait_ready()
        body = {"model": "m", "prompt": "Once upon a time", "max_tokens": 60, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{runtime.url}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            runtime.process.terminate()
            rest = [line for line in lines if line]

        assert rest[-1] == "data: [DONE]"
        assert runtime.process.wait(10) == 0


def test_sigterm_while_loading_is_prompt(smollm2: Path, tmp_path: Path) -> None:
    with runtime_process(tmp_path, MODEL_PATH=str(smollm2)) as runtime:
        runtime.process.terminate()

        assert runtime.process.wait(5) == 0


def ends(folder: Path, **settings: str) -> Termination:
    """Run a runtime that cannot load its model, and give the reason."""
    path = folder / "termination"
    with (folder / "log").open("wb") as log, start(log, TERMINATION_MESSAGE_PATH=str(path), **settings) as process:
        assert process.wait(30) == 1
    termination = Termination.decode(path.read_text())
    assert termination is not None
    last = json.loads((folder / "log").read_text().splitlines()[-1])
    assert (last["level"], last["reason"], last["message"]) == ("error", termination.reason, termination.message)
    return termination


def test_a_missing_file_is_a_reason(tmp_path: Path) -> None:
    assert ends(tmp_path, MODEL_PATH=str(tmp_path / "x.gguf")).reason is LoadError.MODEL_NOT_FOUND


def test_a_truncated_file_is_a_reason(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(smollm2.read_bytes()[:-1000])

    termination = ends(tmp_path, MODEL_PATH=str(tmp_path / "cut.gguf"))

    assert termination.reason is LoadError.MODEL_FILE_INVALID
    assert "truncated" in termination.message


def test_a_file_that_only_llama_cpp_sees_through_is_a_reason_in_its_words(smollm2: Path, tmp_path: Path) -> None:
    # A header without a fault of form, of an architecture that nobody knows.
    content = smollm2.read_bytes()
    (tmp_path / "odd.gguf").write_bytes(content.replace(b"llama", b"lxyza", 1))

    termination = ends(tmp_path, MODEL_PATH=str(tmp_path / "odd.gguf"))

    assert termination.reason is LoadError.ENGINE_FAILED
    assert "lxyza" in termination.message


def test_another_quantization_is_a_reason(smollm2: Path, tmp_path: Path) -> None:
    termination = ends(tmp_path, MODEL_PATH=str(smollm2), MODEL_QUANTIZATION="q8_0")

    assert termination.reason is LoadError.INVALID_MODEL_CONFIG
    assert "Q4_1" in termination.message


def test_bad_input_36_a_context_over_the_model_s_own_is_a_reason_with_both_numbers(
    smollm2: Path, tmp_path: Path
) -> None:
    termination = ends(tmp_path, MODEL_PATH=str(smollm2), MAX_INPUT_TOKENS="1000000")

    assert termination.reason is LoadError.INVALID_MODEL_CONFIG
    assert "1000000" in termination.message
    assert "trained with" in termination.message


def test_bad_input_18_an_option_that_is_not_possible_is_a_reason(smollm2: Path, tmp_path: Path) -> None:
    termination = ends(tmp_path, MODEL_PATH=str(smollm2), EXTRA_ARGS='["--lora=/x"]')

    assert termination.reason is LoadError.INVALID_MODEL_CONFIG
    assert "--lora=/x" in termination.message


def test_wrong_settings_are_a_reason(tmp_path: Path) -> None:
    termination = ends(tmp_path, MODEL_PATH="/x", MAX_CONCURRENT_REQUESTS="many")

    assert termination.reason is LoadError.INVALID_MODEL_CONFIG
    assert "MAX_CONCURRENT_REQUESTS is 'many'" in termination.message


def test_a_port_that_is_taken_is_a_reason(smollm2: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        termination = ends(tmp_path, MODEL_PATH=str(smollm2), PORT=str(taken.getsockname()[1]))

    assert "PORT" in termination.message


def test_the_settings_are_listed() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "moorage_runtime", "settings"], capture_output=True, text=True, check=True, timeout=20
    )

    assert "MAX_INPUT_TOKENS (or LLAMA_CTX)" in listed.stdout
    assert os.environ.get("HOME", "-") not in listed.stdout
