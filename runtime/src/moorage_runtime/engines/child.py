"""The child process of an engine: `python -m moorage_runtime.engines.child NAME PIPE PARENT`, config on stdin.

It dies with its parent, writes one announcement into the pipe, and ends by signal: an engine that holds native threads
is never torn down in order, because that may hang.
"""

import ctypes
import os
import signal
import sys

import msgspec

from moorage_common.facts import LoadError
from moorage_runtime.engines import load_engine
from moorage_runtime.engines.base import Announcement
from moorage_runtime.errors import LoadFailure

_PR_SET_PDEATHSIG = 1

ADVICE = "take the image of this engine, or see docs/runtime.md for the packages"


def main(arguments: list[str]) -> int:
    """Serve one engine until the process is ended."""
    name, pipe, parent = arguments[0], int(arguments[1]), int(arguments[2])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def announce(announcement: Announcement) -> None:
        os.write(pipe, msgspec.json.encode(announcement) + b"\n")
        os.close(pipe)

    try:
        engine = load_engine(name)
        engine.preload()
        engine.serve(sys.stdin.buffer.read(), announce)
    except ModuleNotFoundError as error:
        message = f"the engine {name} needs the package {error.name}, which is not installed here; {ADVICE}"
        announce(Announcement(failure=LoadError.ENGINE_FAILED, message=message))
    except LoadFailure as failure:
        announce(Announcement(failure=failure.termination.reason, message=failure.termination.message))
    except Exception as error:  # noqa: BLE001 - whatever a native engine throws, the front has to hear of it
        announce(Announcement(failure=LoadError.ENGINE_FAILED, message=f"{type(error).__name__}: {error}"))
    sys.stderr.flush()
    # Not sys.exit: destructors of a half-made engine are what hangs.
    os._exit(1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
