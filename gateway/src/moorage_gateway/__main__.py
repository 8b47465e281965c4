"""`moorage-gateway`: serve until SIGTERM; settings come from the environment.

With several workers this process is their master, and each of them is this program again.
"""

import asyncio
import logging
import os
import sys

import msgspec
import uvloop

from moorage_common import logs
from moorage_gateway.kube.credentials import CredentialsError, connect
from moorage_gateway.settings import SettingsError, read_settings
from moorage_gateway.workers import inherited

log = logging.getLogger("moorage_gateway")


def main() -> int:
    """Run the gateway."""
    logs.configure("INFO")
    admin = inherited(sys.argv[1:])
    try:
        settings = read_settings(os.environ)
        connect()
    except (SettingsError, CredentialsError) as error:
        log.error(str(error))
        return 1
    logs.configure(settings.log_level)
    if admin is None:
        log.info("settings", extra=msgspec.to_builtins(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.workers > 1 and admin is None:
            from moorage_gateway.master import serve_by_workers

            return runner.run(serve_by_workers(settings, connect))
        from moorage_gateway.server import serve

        return runner.run(serve(settings, connect, admin))


if __name__ == "__main__":
    sys.exit(main())
