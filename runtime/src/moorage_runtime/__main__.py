"""The command line: `moorage-runtime serve`, `moorage-runtime fetch` and `moorage-runtime settings`.

argparse, and imports where they are needed: what this process imports is time that a model takes longer to start.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorage_runtime.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="moorage-runtime", description="One HTTP API in front of one model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="load the model and serve; settings come from the environment")
    commands.add_parser("fetch", help="download the model's files into a folder; settings come from the environment")
    commands.add_parser("settings", help="list the settings of serve and of fetch")
    command = parser.parse_args(arguments).command
    return {"serve": _serve, "fetch": _fetch, "settings": _settings}[command]()


def _serve() -> int:
    # The first process of a container ignores a signal that it has no handler for; the server sets its own later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    from moorage_common import logs
    from moorage_runtime.settings import SettingsError, read_settings
    from moorage_runtime.settings_used import warning

    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        return _wrong_settings(error)
    logs.configure(settings.log_level)

    import asyncio
    import logging

    import msgspec
    import uvloop

    log = logging.getLogger("moorage_runtime")
    log.info("settings", extra=msgspec.to_builtins(settings, enc_hook=str))
    if said := warning(os.environ, settings):
        log.warning(said)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(settings))


async def _live(settings: "Settings") -> int:
    """Start the engine's process first: it imports its libraries while we import the rest of ours."""
    from moorage_runtime.engines import load_engine
    from moorage_runtime.process import Child

    child = await Child.start(load_engine(settings.model_backend.value))

    from moorage_runtime.server import serve

    return await serve(settings, child)


def _wrong_settings(error: Exception) -> int:
    """Tell of settings that cannot be read, in the log and in the termination message."""
    from moorage_common import logs
    from moorage_common.facts import LoadError, Termination
    from moorage_runtime.errors import report_termination
    from moorage_runtime.settings import termination_log

    logs.configure("INFO")
    configured = os.environ.get("TERMINATION_MESSAGE_PATH")
    report_termination(
        Termination(LoadError.INVALID_MODEL_CONFIG, str(error)),
        termination_log(Path(configured) if configured else None),
    )
    return 1


def _fetch() -> int:
    from moorage_runtime.fetch.command import main

    return main(os.environ)


def _settings() -> int:
    from moorage_runtime.fetch import settings as fetch_settings
    from moorage_runtime.settings import describe

    for title, rows in (("serve", describe()), ("fetch", fetch_settings.describe())):
        print(f"-- moorage-runtime {title}")
        for name, default, meaning in rows:
            print(f"{name}\n    {meaning}\n    default: {default or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
