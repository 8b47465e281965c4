"""`python -m moorage_gateway.manage`: serve the management API at a unix socket, until SIGTERM or the gateway's end."""

import logging
import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from moorage_common import logs
from moorage_gateway.kube.credentials import CredentialsError, connect, server_alone
from moorage_gateway.manage.app import build_app
from moorage_gateway.settings import Settings, SettingsError, read_settings

log = logging.getLogger("moorage_gateway.manage")

DRAIN_SECONDS = 10
CONNECTIONS = 256


def main() -> int:
    """Run it."""
    logs.configure("INFO")
    try:
        settings = read_settings(os.environ)
        server_alone()
    except (SettingsError, CredentialsError) as error:
        log.error(str(error))
        return 1
    logs.configure(settings.log_level)
    for noisy in ("uvicorn", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    server = uvicorn.Server(_config(settings))
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    with _listen(Path(settings.management_socket)) as listener:
        log.info("listening", extra={"socket": settings.management_socket})
        server.run(sockets=[listener])
    return 0


def _config(settings: Settings) -> uvicorn.Config:
    app = build_app(server_alone, connect, settings.served_namespaces)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        http="httptools",
        loop="uvloop",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _listen(path: Path) -> socket.socket:
    """Open the socket: for this user alone, as whoever can write to it is believed who they say they are."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    return listener


def _end_with_parent(server: uvicorn.Server) -> None:
    """The gateway holds the other end of our input: it ends with the gateway, however that ends."""
    while os.read(0, 4096):
        pass
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
