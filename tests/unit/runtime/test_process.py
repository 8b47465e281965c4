"""The child process as the front sees it."""

import uvloop

from moorage_common.facts import LoadError
from moorage_runtime.engines import load_engine
from moorage_runtime.process import Child


def test_a_child_that_has_ended_before_it_is_told_what_to_load_says_why() -> None:
    """Checking large files takes longer than to find that a package is missing."""

    async def run() -> None:
        # Our own environment has neither PyTorch nor transformers.
        child = await Child.start(load_engine("transformers"))
        try:
            await child.ended()
            child.load(b"generate\n{}")
            said = await child.announcement()
        finally:
            await child.stop()
        assert said.failure is LoadError.ENGINE_FAILED
        assert "the package torch, which is not installed here" in said.message

    # The runtime's own loop: of a closed pipe it tells in its own way.
    uvloop.run(run())
