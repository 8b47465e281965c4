"""`moorage-gateway`: serve until SIGTERM; settings come from the environment."""

import asyncio
import logging
import os
import sys

import msgspec
import uvloop

from moorage_common import logs
from moorage_common.kube.credentials import CredentialsError, connect
from moorage_gateway.server import serve
from moorage_gateway.settings import SettingsError, read_settings

log = logging.getLogger("moorage_gateway")


def main() -> int:
    """Run the gateway."""
    logs.configure("INFO")
    try:
        settings = read_settings(os.environ)
        connect()
    except (SettingsError, CredentialsError) as error:
        log.error(str(error))
        return 1
    logs.configure(settings.log_level)
    log.info("settings", extra=msgspec.to_builtins(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, connect))


if __name__ == "__main__":
    sys.exit(main())
