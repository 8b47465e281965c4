"""The loop that generates: full to its last page, cancelled, and dead; in a process of its own, which has torch."""

import os
import subprocess

import pytest

from hack.engines import environments

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("script", ["loop_dies", "loop_goes_on", "loop_compiles"])
def test_a_loop_is_never_silent_and_compiled_the_same(script: str) -> None:
    done = subprocess.run(
        [str(environments.python_of("transformers")), "-m", f"tests.engines.{script}"],
        env={**os.environ, **environments.variables(), "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.stdout.splitlines()[-1:] == ["as it should be"], done.stderr[-4000:]
