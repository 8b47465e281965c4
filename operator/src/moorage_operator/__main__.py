"""`python -m moorage_operator`: runs the operator until it is told to end."""

import asyncio
import logging
import sys

import uvloop

from moorage_common.kube.credentials import CredentialsError, connect
from moorage_operator import logs, operator
from moorage_operator.settings import Settings

log = logging.getLogger("moorage_operator")


def main() -> int:
    """Runs until SIGTERM."""
    settings = Settings()
    logs.configure(settings.log_level)
    log.info("settings", extra=settings.model_dump(mode="json"))
    try:
        uvloop.run(operator.run(settings, connect))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    except CredentialsError as error:
        log.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
