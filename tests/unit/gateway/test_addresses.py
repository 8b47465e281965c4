"""Who a client is: nobody makes themselves another by a header, unless a proxy that is trusted says so."""

import pytest

from moorage_gateway.addresses import Clients, group, read_networks

TRUSTED = read_networks("10.0.0.0/8, 2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", b"1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", b"6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
        ("10.0.0.1", b"10.9.9.9", "10.9.9.9"),
        ("10.0.0.1", b"1.2.3.4, <script>", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("::ffff:10.0.0.1", b"1.2.3.4:5678", "1.2.3.4"),
        ("2001:db8:1::5", b"[2001:db8:2::7]:443", "2001:db8:2::7"),
        ("", b"1.2.3.4", ""),
    ],
)
def test_bad_input_57_only_trusted_proxies_are_believed(peer: str, forwarded: bytes, client: str) -> None:
    assert Clients(TRUSTED).address(peer, {b"x-forwarded-for": forwarded}) == client
    assert Clients().address(peer, {b"x-forwarded-for": forwarded}) == peer


def test_one_host_of_ipv6_is_one() -> None:
    assert group("2001:db8::1") == group("2001:db8::ffff:1") != group("2001:db8:0:1::1")
    assert group("fe80::1%eth0") == "fe80::"
    assert group("somewhere") == "somewhere"


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        read_networks("10.0.0.1/8")
