"""Ends an engine's whole session when its first process ends, however that ends.

An engine that starts processes of its own leaves them behind when the process that started them is killed: of vLLM's,
3 GB stay for good. The guard is a small process of the same session that the kernel tells of the end of its parent.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def guard() -> None:
    """Fork the guard. Call it before anything is imported that starts threads or holds memory."""
    parent = os.getpid()
    if os.fork():
        return
    try:
        _wait_for_the_end_of(parent)
    finally:
        # The kernel ends all in the group in one go, the guard with them.
        os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _wait_for_the_end_of(parent: int) -> None:
    # What others wait for the end of, the pipe of the announcement and the log, must not be held open here.
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    while os.getppid() == parent:
        signal.sigtimedwait({signal.SIGUSR1}, 10)
