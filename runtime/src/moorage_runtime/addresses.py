"""Which addresses may be connected to. Pure.

A name can point anywhere, and may point elsewhere the next time it is asked for; so what a connection is made to is
checked, not only what was written. Private networks are allowed: mirrors and object stores are there.
"""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address) for address in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds keep what belongs to the node; 169.254.169.254 is link-local anyway."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_forbidden(address: str, *, loopback: bool) -> bool:
    """Tell whether nothing may be fetched from an IP address; `loopback` is for tests.

    >>> [is_forbidden(a, loopback=False) for a in ("169.254.169.254", "::ffff:127.0.0.1", "10.1.2.3", "93.184.216.34")]
    [True, True, False, False]
    """
    return any(_is_forbidden(one, loopback=loopback) for one in _meant(address))


def is_public(address: str) -> bool:
    """Tell whether an IP address is of the public internet: not private, loopback, link-local or multicast.

    >>> [is_public(a) for a in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::7f00:1", "224.0.0.1", "93.184.216.34")]
    [False, False, False, False, True]
    """
    return all(one.is_global and not one.is_multicast for one in _meant(address))


def _meant(address: str) -> list[Address]:
    """Give an address, and that of IPv4 inside it: mapped, 6to4 and NAT64 addresses may be sent on to it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return [found]
    inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else found.ipv4_mapped or found.sixtofour
    if inner is None:
        return [found]
    # What IPv6 says of a mapped address is not the same in all versions of Python.
    return [inner] if found.ipv4_mapped else [found, inner]


def _is_forbidden(found: Address, *, loopback: bool) -> bool:
    if found.is_loopback:
        return not loopback
    reserved = isinstance(found, ipaddress.IPv4Address) and (found.is_reserved or int(found) >> 24 == 0)
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA or reserved
