"""Who a client is by its address: the other end of the connection, or what a proxy that is trusted says of it."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

FORWARDED: Final = b"x-forwarded-for"
MOST_HOPS: Final = 16

Network = IPv4Network | IPv6Network


class Clients:
    """Finds a client's address; only `trusted` networks are believed what they say in X-Forwarded-For."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        """Without any, the other end of the connection is the client."""
        self._networks = tuple(trusted)
        self._trusted = lru_cache(maxsize=4096)(self._is_trusted)

    def address(self, peer: str, headers: dict[bytes, bytes]) -> str:
        """The client's address: the last one that no trusted proxy has."""
        if not self._networks or FORWARDED not in headers or not self._trusted(peer):
            return peer
        found = peer
        for hop in reversed(headers[FORWARDED].decode("latin-1").split(",")[-MOST_HOPS:]):
            name = _plain(hop.strip())
            if name is None:
                break
            found = name
            if not self._trusted(name):
                break
        return found

    def _is_trusted(self, address: str) -> bool:
        try:
            told = _unmapped(address)
        except ValueError:
            return False
        return any(told in network for network in self._networks)


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks between commas; ValueError names the one that is none.

    >>> read_networks("10.0.0.0/8, fd00::/8")
    (IPv4Network('10.0.0.0/8'), IPv6Network('fd00::/8'))
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def group(address: str) -> str:
    """Whom failures are counted for: an address of IPv4, the /64 of one of IPv6, which one host has to itself.

    >>> group("192.0.2.7"), group("2001:db8::1:2:3:4"), group("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::', '192.0.2.7')
    """
    try:
        told = _unmapped(address)
    except ValueError:
        return address
    if isinstance(told, IPv6Address):
        return str(IPv6Address(int(told) >> 64 << 64))
    return str(told)


def _unmapped(address: str) -> IPv4Address | IPv6Address:
    told = ip_address(address.partition("%")[0])
    return told.ipv4_mapped or told if isinstance(told, IPv6Address) else told


def _plain(hop: str) -> str | None:
    """Take an address out of what a proxy wrote, which may have a port; None where it is none."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None
