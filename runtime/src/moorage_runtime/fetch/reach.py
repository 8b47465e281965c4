"""Which addresses may be connected to. Pure.

A name can point anywhere, and may point elsewhere the next time it is asked for; so what a connection is made to is
checked, not only what was written. Private networks are allowed: mirrors and object stores are there.
"""

from __future__ import annotations

import ipaddress
from typing import Final

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
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    if found.is_loopback:
        return not loopback
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA or _reserved(found)


def _reserved(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(found, ipaddress.IPv4Address) and (found.is_reserved or int(found) >> 24 == 0)
