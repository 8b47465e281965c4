"""Many streams at a time through one gateway: none is cut, and memory stays within bounds. It needs a C compiler.

200 in every run; MOORAGE_STREAMS=5000 for more (the limit of open files has to be twice that, and a little).
"""

import os
import shutil

import pytest

from hack.bench import _gateway_sides as sides
from hack.bench._gateway_load import load_from
from moorage_common.http.message import Limits

STREAMS = int(os.environ.get("MOORAGE_STREAMS", "200"))
EVENTS, TICK_US = 8, 250_000


@pytest.mark.skipif(shutil.which("cc") is None or shutil.which("taskset") is None, reason="there is no C compiler")
def test_many_streams_at_a_time_are_all_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert Limits().connections > STREAMS
    cores = sorted(os.sched_getaffinity(0))
    with (
        load_from(cores[-1]) as load,
        sides.mock(EVENTS, TICK_US, core=cores[-1]) as pod,
        sides.ours(pod, core=cores[0], load_core=cores[-1]) as gateway,
    ):
        found = load.streams(gateway, STREAMS)
    with capsys.disabled():
        print(f"\n{STREAMS} streams at a time: {found.rss / 2**20:.0f} MB")
    assert (found.errors, found.open_most, found.events) == (0, STREAMS, STREAMS * (EVENTS + 1))
    assert found.rss < (80 + STREAMS / 50) * 2**20
