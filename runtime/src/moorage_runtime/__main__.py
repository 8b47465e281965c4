"""The command line: `moorage-runtime serve` and `moorage-runtime settings`.

argparse, and imports where they are needed: what this process imports is time that a model takes longer to start.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def main(arguments: list[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="moorage-runtime", description="One HTTP API in front of one model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="load the model and serve; settings come from the environment")
    commands.add_parser("settings", help="list the settings")
    command = parser.parse_args(arguments).command
    return _serve() if command == "serve" else _settings()


def _serve() -> int:
    from pydantic import ValidationError

    from moorage_runtime import logs
    from moorage_runtime.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        return _wrong_settings(error)
    logs.configure(settings.log_level)

    import asyncio
    import logging

    import uvloop

    from moorage_runtime.server import serve

    logging.getLogger(__name__).info("settings", extra=settings.model_dump(mode="json"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


def _wrong_settings(error: ValidationError) -> int:
    """Tell of settings that cannot be read, in the log and in the termination message."""
    from moorage_common.facts import LoadError, Termination
    from moorage_runtime import logs
    from moorage_runtime.server import report_termination
    from moorage_runtime.settings import TerminationSettings

    logs.configure("INFO")
    problems = [f"{str(e['loc'][0]).upper()}={e['input']!s:.100}: {e['msg']}" for e in error.errors()]
    report_termination(
        Termination(LoadError.INVALID_MODEL_CONFIG, "; ".join(problems)),
        TerminationSettings().termination_log,
    )
    return 1


def _settings() -> int:
    from moorage_runtime.settings import describe

    for name, default, meaning in describe():
        print(f"{name}\n    {meaning}\n    default: {default or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
