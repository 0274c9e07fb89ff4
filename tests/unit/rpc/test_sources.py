"""The source of a call: an address, a network, or the address that a trusted proxy forwards."""

import pytest

from godoty_service.rpc.auth_throttle import Sources
from godoty_service.settings.types import read_networks


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv4:10.0.0.1:9", "10.0.0.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("ipv6:[::ffff:10.0.0.1]:5000", "10.0.0.1"),
        ("unix:", "unix"),
        ("unix:/run/godoty.sock", "unix"),
        ("", "unknown"),
        ("ipv6:nonsense", "ipv6"),
    ],
)
def test_source_is_an_address_or_a_network(peer: str, source: str) -> None:
    """For IPv6 the 64-bit network, because a host can use any address in it. The port does not matter."""
    assert Sources().of(peer, ()) == source


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8:1:2::9]:80"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2::9"], "2001:db8:1:2::/64"),
        (["192.0.2.66, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (["192.0.2.66", "203.0.113.7,10.9.9.9, 10.1.1.1"], "203.0.113.7"),
        (["203.0.113.7, unknown"], "10.0.0.1"),
        (["10.3.3.3"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
        (["1.1.1.1, " * 10_000 + "203.0.113.7"], "203.0.113.7"),
    ],
)
def test_forwarded_address_of_a_trusted_proxy_is_the_source(forwarded: list[str], source: str) -> None:
    """The last address that is not a trusted proxy's; those before it may be forged."""
    sources = Sources(read_networks("10.0.0.0/8, fd00::/8"))
    metadata = [("x-forwarded-for", each) for each in forwarded]

    assert sources.of("ipv4:10.0.0.1:5000", metadata) == source


def test_forwarded_address_of_any_other_peer_is_ignored() -> None:
    """A direct client can forge the header."""
    sources = Sources(read_networks("10.0.0.0/8"))

    assert sources.of("ipv4:192.0.2.1:5000", [("x-forwarded-for", "203.0.113.7")]) == "192.0.2.1"


def test_networks_are_parsed_and_invalid_text_is_refused() -> None:
    """Addresses and networks, separated by commas."""
    assert [str(each) for each in read_networks(" 10.0.0.0/8,192.0.2.1")] == ["10.0.0.0/8", "192.0.2.1/32"]
    with pytest.raises(ValueError, match="nonsense"):
        read_networks("nonsense")
