"""`python -m moorage_operator`: runs the operator until it is told to end."""

import signal
import sys

if __name__ == "__main__":
    # Before the imports below, which take a second: as process 1 we would not hear SIGTERM meanwhile.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import asyncio
import logging

# Registers the handlers with kopf.
import moorage_operator.handlers
from moorage_operator import logs
from moorage_operator.cluster.connection import CredentialsError
from moorage_operator.handlers.framework import FrameworkErrorsAreWarnings, run
from moorage_operator.settings import Settings

log = logging.getLogger(moorage_operator.__name__)


def main() -> int:
    """Runs until SIGTERM."""
    settings = Settings()
    logs.configure(settings.log_level, FrameworkErrorsAreWarnings())
    log.info("settings", extra=settings.model_dump(mode="json"))
    try:
        # Not uvloop: a connection that is given up while being made may spoil a later one (MagicStack/uvloop#653).
        asyncio.run(run(settings))
    except KeyboardInterrupt:
        return 0
    except CredentialsError as error:
        log.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
