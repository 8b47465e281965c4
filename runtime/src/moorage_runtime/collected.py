"""An answer of the engine that is read by the runtime itself, and not passed on."""

from moorage_common.http.client import UpstreamConnection


class Collected:
    """A sink that keeps a small answer."""

    def __init__(self) -> None:
        """Begin empty."""
        self.status = 0
        self.content = b""

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        """Take the status."""
        self.status = status

    def body(self, data: bytes) -> None:
        """Take a piece."""
        self.content += data
