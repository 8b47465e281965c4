"""The loop that generates: full to its last page, cancelled, and dead; in a process of its own, which has torch."""

import os
import subprocess

import pytest

from hack.engines import environments

pytestmark = pytest.mark.timeout(300)


def test_a_loop_is_never_silent() -> None:
    done = subprocess.run(
        [str(environments.python_of("transformers")), "tests/engines/loop_dies.py"],
        env={**os.environ, **environments.variables(), "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout.splitlines()[-1:] == ["as it should be"], done.stderr[-4000:]
