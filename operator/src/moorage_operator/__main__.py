"""`python -m moorage_operator`: runs the operator until it is told to end."""

import asyncio
import logging
import sys

import kopf
import uvloop

from moorage_operator import app, logs
from moorage_operator.settings import Settings

log = logging.getLogger("moorage_operator")


def login() -> kopf.ConnectionInfo:
    """The pod's service account, or outside a cluster the kubeconfig that $KUBECONFIG names."""
    settings = kopf.OperatorSettings()
    connection = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if connection is None:
        raise SystemExit("no credentials: neither a service account is mounted nor does KUBECONFIG name a file")
    return connection


def main() -> int:
    """Runs until SIGTERM."""
    settings = Settings()
    logs.configure(settings.log_level)
    log.info("settings", extra=settings.model_dump(mode="json"))
    try:
        uvloop.run(app.run(settings, login))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
