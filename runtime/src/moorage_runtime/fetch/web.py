"""Files by their https:// address: one, or those of a folder that were named. No token is ever sent."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import Asked
from moorage_runtime.fetch.origin import Listing
from moorage_runtime.fetch.plan import Remote
from moorage_runtime.fetch.source import WebAddress


class Web:
    """One address."""

    def __init__(self, address: WebAddress, files: tuple[str, ...]) -> None:
        """Fetch `files` below the address if it is a folder, else the one that it names."""
        self.where = address.url
        self._address = address
        self._files = files

    def list(self) -> Listing:
        """Say which files are meant; nothing is asked, as a web server has no list."""
        if not self._address.is_folder:
            return Listing((Remote(name=urlsplit(self._address.url).path.rpartition("/")[2]),))
        if not self._files:
            raise LoadFailure(
                LoadError.INVALID_MODEL_CONFIG,
                f"{self.where} is a folder: name its files in spec.source.files (MODEL_FILES)",
            )
        return Listing(tuple(Remote(name=name) for name in self._files))

    def asked(self, remote: Remote) -> Asked:
        """Ask for a file."""
        return Asked(url=self._address.url + (remote.name if self._address.is_folder else ""))

    def refusal(self, status: int, headers: Mapping[str, str], name: str) -> LoadFailure:
        """Say what an answer means."""
        host = urlsplit(self._address.url).hostname
        if status in (401, 403):
            return LoadFailure(
                LoadError.DOWNLOAD_UNAUTHORIZED,
                f"{host} answers {status} for {name}: what asks for a password or a key cannot be fetched by https://",
            )
        if status in (404, 410):
            return LoadFailure(LoadError.MODEL_NOT_FOUND, f"{host} has no {name} (it answers {status})")
        return LoadFailure(LoadError.DOWNLOAD_FAILED, f"{host} answers {status} for {name}")
