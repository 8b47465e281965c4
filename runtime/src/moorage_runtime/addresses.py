"""Which addresses may be connected to. Pure.

A name can point anywhere, and may point elsewhere the next time it is asked for; so what a connection is made to is
checked, not only what was written. Private networks are allowed: mirrors and object stores are there.
"""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:ec2::23",  # EKS, credentials of pods
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
"""Where clouds keep what belongs to the node; 169.254.169.254 is link-local anyway."""

_LAST_BITS: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible, RFC 4291
        "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
        "64:ff9b::/96",  # NAT64, RFC 6052
    )
)
"""Networks whose addresses end with one of IPv4."""
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""Of each network's own use (RFC 8215): it chooses where the IPv4 address is, among the places of RFC 6052."""


def is_forbidden(address: str, *, loopback: bool) -> bool:
    """Tell whether nothing may be fetched from an IP address; `loopback` is for tests.

    >>> [is_forbidden(a, loopback=False) for a in ("169.254.169.254", "::ffff:127.0.0.1", "10.1.2.3", "93.184.216.34")]
    [True, True, False, False]
    """
    return any(_is_forbidden(one, loopback=loopback) for one in _meant(address))


def is_public(address: str) -> bool:
    """Tell whether an IP address is of the public internet: not forbidden, private, loopback, link-local or multicast.

    >>> [is_public(a) for a in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::7f00:1", "224.0.0.1", "93.184.216.34")]
    [False, False, False, False, True]
    """
    # Versions of Python do not agree whether the local use of NAT64 is global.
    return all(
        one.is_global and one not in _LOCAL_NAT64 and not _is_forbidden(one, loopback=False) for one in _meant(address)
    )


def _meant(address: str) -> list[Address]:
    """Give an address, and those of IPv4 inside it: a packet to it may be sent on to them."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return [found]
    # What IPv6 says of a mapped address is not the same in all versions of Python.
    return [found.ipv4_mapped] if found.ipv4_mapped else [found, *_inside(found)]


def _inside(found: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    bits = int(found)
    if bits <= 1:  # :: and ::1 are their own
        return []
    if any(found in network for network in _LAST_BITS):
        return [ipaddress.IPv4Address(bits & 0xFFFFFFFF)]
    if found in _LOCAL_NAT64:
        # After prefixes of 96, 64, 56 and 48 bits; bits 64 to 71 are never of the address. Where it is not are zeros.
        after_56 = (bits >> 40 & 0xFF000000) | (bits >> 32 & 0xFFFFFF)
        after_48 = (bits >> 48 & 0xFFFF0000) | (bits >> 40 & 0xFFFF)
        places = (bits & 0xFFFFFFFF, bits >> 24 & 0xFFFFFFFF, after_56, after_48)
        return [ipaddress.IPv4Address(place) for place in places if place >> 24]
    if found.teredo:
        return list(found.teredo)
    return [found.sixtofour] if found.sixtofour else []


def _is_forbidden(found: Address, *, loopback: bool) -> bool:
    if found.is_loopback:
        return not loopback
    if isinstance(found, ipaddress.IPv4Address):
        odd = found.is_reserved or int(found) >> 24 == 0
    else:
        odd = found.is_site_local
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA or odd
