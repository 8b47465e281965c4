"""Settings that a backend does not use are warned of, where they were set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moorage_common.tasks import Task
from moorage_runtime.settings import Backend, Settings, read_settings
from moorage_runtime.settings_used import USERS, unused, warning

SOURCES = {
    (Backend.LLAMACPP, Task.GENERATE): "engines/llamacpp.py",
    (Backend.VLLM, Task.GENERATE): "engines/vllm.py",
    (Backend.DUMMY, Task.GENERATE): "engines/dummy.py",
    (Backend.TRANSFORMERS, Task.GENERATE): "generation/front.py",
    (Backend.TRANSFORMERS, Task.EMBED): "embedding/front.py",
}
"""Where each looks at its settings."""

READ_AS = {"image_url_hosts": "image_hosts"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (
            {"COMPILE_MODEL": "true", "TORCH_NUM_THREADS": "1", "LOW_CPU_MEM_USAGE": "false"},
            ["TORCH_NUM_THREADS", "COMPILE_MODEL", "LOW_CPU_MEM_USAGE"],
        ),
        ({"TENSOR_PARALLEL_SIZE": "8", "LLAMA_THREADS": "2", "MODEL_QUANTIZATION": "4bit"}, ["TENSOR_PARALLEL_SIZE"]),
        ({"MODEL_BACKEND": "dummy", "MODEL_QUANTIZATION": "4bit"}, ["MODEL_QUANTIZATION"]),
        ({"MODEL_BACKEND": "transformers", "MAX_BATCH_SIZE": "8", "COMPILE_MODEL": "true"}, ["MAX_BATCH_SIZE"]),
        (
            {
                **{"MODEL_BACKEND": "transformers", "MODEL_TASK": "embed", "MAX_BATCH_SIZE": "8"},
                **{"COMPILE_MODEL": "true", "REQUEST_DEFAULTS": '{"top_k": 1}'},
            },
            ["COMPILE_MODEL", "REQUEST_DEFAULTS"],
        ),
        ({"MODEL_BACKEND": "vllm", "TENSOR_PARALLEL_SIZE": "2", "PORT": "1", "TORCH_NUM_THREADS": ""}, []),
        (
            {"MODEL_BACKEND": "dummy", "MODEL_PRESET": "small", "LLAMA_CTX": "512"},
            [],
        ),  # a preset asks for nothing by name
    ],
)
def test_what_is_set_and_not_used_is_named(asked: dict[str, str], names: list[str]) -> None:
    settings = read_settings(asked)

    assert unused(asked, settings) == names
    said = warning(asked, settings)
    assert (said is None) == (not names)
    assert all(f"{name}={asked[name]}" in (said or "") for name in names)


def test_the_table_is_about_settings_that_there_are() -> None:
    assert set(USERS) <= set(Settings.__struct_fields__)


@pytest.mark.parametrize("user", SOURCES, ids="-".join)
def test_the_table_says_what_the_sources_read(user: tuple[Backend, Task]) -> None:
    source = (Path("runtime/src/moorage_runtime") / SOURCES[user]).read_text()
    read = {field for field in USERS if re.search(rf"settings\.{READ_AS.get(field, field)}\b", source)}

    in_front = {"request_defaults"}  # the front itself reads them, for the routes that an engine has
    assert read == {field for field, users in USERS.items() if user in users} - in_front


def test_the_warning_is_in_the_log_of_a_start(tmp_path: Path) -> None:
    asked = {"MODEL_BACKEND": "llamacpp", "MODEL_PATH": str(tmp_path / "none.gguf"), "COMPILE_MODEL": "true"}
    environment = {
        **os.environ,
        **asked,
        "PORT": "0",
        "HOST": "127.0.0.1",
        "TERMINATION_MESSAGE_PATH": str(tmp_path / "t"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "moorage_runtime", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    lines = [line for line in done.stderr.splitlines() if '"warning"' in line]
    assert len(lines) == 1
    assert "COMPILE_MODEL=true" in lines[0]
