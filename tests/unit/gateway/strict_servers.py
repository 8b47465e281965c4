"""What others read of a stream of bytes: h11, and what nginx did when it was asked (`python -m tests.nginx.ask`)."""

import json
from pathlib import Path
from typing import NamedTuple

import h11

NGINX = Path(__file__).with_name("odd_requests_nginx.json")


class Seen(NamedTuple):
    """One request as a server took it."""

    method: str
    target: str
    body: bytes


def by_h11(content: bytes) -> list[Seen]:
    """The requests that h11 takes before it gives up, in the role of a server."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(content)
    seen: list[Seen] = []
    method = target = ""
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method.decode(), event.target.decode("latin-1"), b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.append(Seen(method, target, body))
                status = 405 if method == "CONNECT" else 200
                connection.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return seen
                connection.start_next_cycle()
            else:
                return seen
    except h11.RemoteProtocolError:
        return seen


def by_nginx() -> dict[str, list[Seen]]:
    """The requests that nginx took of each stream."""
    told = json.loads(NGINX.read_text())["seen"]
    return {
        name: [Seen(method, target, body.encode("latin-1")) for method, target, body in requests]
        for name, requests in told.items()
    }
