"""Limits how many unproven API keys a source may have looked up: a token bucket per source.

A source is the address of the client, or the one that a trusted proxy forwards. A key that is cached, or that was valid
at its last look-up, needs no token, so a throttled source does not delay the valid keys behind the same proxy.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import TracebackType
from urllib.parse import unquote

import structlog

from godoty_service.errors import QuotaExceeded
from godoty_service.settings.types import Network

log = structlog.get_logger(__name__)

Metadata = Iterable[tuple[str, str | bytes]]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_BURST = 10.0  # look-ups of wrong keys that a source may use at once before the rate applies
_MAX_SOURCES = 10_000  # that are tracked; the one whose last wrong key is oldest is evicted first
_MAX_LOOKUPS = 32  # concurrent database look-ups of unproven keys, of all sources together
_LOG_INTERVAL = 60.0  # seconds between two log lines about a source
_CACHED_PEERS = 1024  # connections, and addresses
_FORWARDED = "x-forwarded-for"
_MAX_FORWARDED = 1024  # characters of forwarded addresses that are read: the newest, at the end
_UNKNOWN = "unknown"  # gRPC has no address for a call that has already ended
_HOST_BITS = 64  # of an IPv6 address: a host can use any address of such a network


class TooManyWrongKeys(QuotaExceeded):
    """The source sent too many wrong keys for another look-up now."""

    reason = "TOO_MANY_WRONG_KEYS"


class _SourceState:
    """The token bucket and the refusals of a source that sent wrong keys."""

    __slots__ = ("logged_at", "refused", "tokens", "updated_at")

    def __init__(self, now: float) -> None:
        self.tokens = _BURST
        self.updated_at = now
        self.refused = 0  # calls since the last log line
        self.logged_at = now - _LOG_INTERVAL


class AuthThrottle:
    """Throttles the look-ups of each source, in bounded memory."""

    def __init__(self, *, lookups_per_second: float, tick: Callable[[], float] = time.monotonic) -> None:
        """Create the throttle.

        Args:
            lookups_per_second: Look-ups of unproven keys that a throttled source gets.
            tick: Returns the seconds of a monotonic clock.
        """
        self._rate = lookups_per_second
        self._tick = tick
        self._sources: OrderedDict[str, _SourceState] = OrderedDict()
        self._lookups = 0

    def check(self, source: str) -> "KeyCheck":
        """Start the check of a key that a source sent."""
        return KeyCheck(self, source)

    def acquire(self, source: str) -> None:
        """Acquire a look-up: one of the source's tokens, and one of the concurrent look-ups.

        Raises:
            TooManyWrongKeys: None is available.
        """
        wait = self._wait(source)
        if wait > 0:
            raise TooManyWrongKeys(
                f"Too many wrong API keys from this address: at most {self._rate:g} unknown keys a second are checked;"
                f" retry in {wait:.1f} s.",
                quota="key_lookups/second",
                retry_after=wait,
            )
        self._lookups += 1
        if (state := self._sources.get(source)) is not None:
            state.tokens -= 1
        else:
            self._track(source).tokens -= 1

    def release(self) -> None:
        """Release a concurrent look-up."""
        self._lookups -= 1

    def accept(self, source: str) -> None:
        """Return the token of a look-up that found a valid key."""
        if (state := self._sources.get(source)) is not None:
            state.tokens = min(_BURST, state.tokens + 1)

    def refuse(self, source: str) -> None:
        """Count a refused call; log the source at most once a minute."""
        state = self._track(source)
        state.refused += 1
        now = self._tick()
        if now - state.logged_at >= _LOG_INTERVAL:
            log.warning("keys_refused", source=source, calls=state.refused)
            state.refused, state.logged_at = 0, now

    def _wait(self, source: str) -> float:
        """Return the seconds until a source may have a key looked up; 0: now."""
        if self._lookups >= _MAX_LOOKUPS:
            return 1.0
        state = self._sources.get(source)
        if state is None:
            return 0.0
        now = self._tick()
        state.tokens = min(_BURST, state.tokens + (now - state.updated_at) * self._rate)
        state.updated_at = now
        return max(0.0, (1 - state.tokens) / self._rate)

    def _track(self, source: str) -> _SourceState:
        state = self._sources.get(source)
        if state is None:
            state = self._sources[source] = _SourceState(self._tick())
            if len(self._sources) > _MAX_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(source)
        return state


class KeyCheck:
    """The check of one key. Its `with` block surrounds the database look-up, if one is needed."""

    __slots__ = ("_acquired", "_source", "_throttle")

    def __init__(self, throttle: AuthThrottle, source: str) -> None:
        self._throttle = throttle
        self._source = source
        self._acquired = False

    def __enter__(self) -> None:
        self._throttle.acquire(self._source)
        self._acquired = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._throttle.release()

    def accept(self) -> None:
        """Report that the key is valid."""
        if self._acquired:
            self._throttle.accept(self._source)

    def refuse(self) -> None:
        """Report that the key is invalid, or was not looked up."""
        self._throttle.refuse(self._source)


class Sources:
    """Identifies each call's source: an IPv4 address, an IPv6 network of 64 bits, or the type of a local socket."""

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        """Create it.

        Args:
            trusted_proxies: Networks of the proxies whose `x-forwarded-for` counts; from other peers it is ignored.
        """
        self._proxies = tuple(trusted_proxies)

    def of(self, peer: str, metadata: Metadata) -> str:
        """Return the source of a call.

        Args:
            peer: The connection's remote address as gRPC writes it: "ipv4:10.0.0.1:5000".
            metadata: The call's metadata.
        """
        found = self._find(peer, metadata)
        return found if isinstance(found, str) else _format_source(found)

    def address(self, peer: str, metadata: Metadata) -> str:
        """Return the address of a call's source, whole also of IPv6; the arguments are those of `of`."""
        return str(self._find(peer, metadata))

    def _find(self, peer: str, metadata: Metadata) -> IpAddress | str:
        """Return the address of a call's source, or the type of a local socket."""
        family, address = _parse_peer(peer)
        if address is None:
            return family or _UNKNOWN
        if self._proxies and self._trusts(address):
            address = self._forwarded(metadata) or address
        return address

    def _forwarded(self, metadata: Metadata) -> IpAddress | None:
        """Return the last forwarded address that is not a trusted proxy's, or None if there is none.

        Each proxy appends the address of its own client, so an untrusted address may have forged those before it.
        """
        texts = [value for key, value in metadata if key == _FORWARDED and isinstance(value, str)]
        for text in reversed(",".join(texts)[-_MAX_FORWARDED:].split(",")):
            address = _parse_address(text.strip())
            if address is None:
                return None
            if not self._trusts(address):
                return address
        return None

    def _trusts(self, address: IpAddress) -> bool:
        return any(address.version == each.version and address in each for each in self._proxies)


@lru_cache(_CACHED_PEERS)
def _parse_peer(peer: str) -> tuple[str, IpAddress | None]:
    family, _, rest = unquote(peer).partition(":")
    return family, _parse_address(rest) if family in ("ipv4", "ipv6") else None


def _parse_address(text: str) -> IpAddress | None:
    """Parse an address, with or without a port: 10.0.0.1, 10.0.0.1:80, 2001:db8::1, [2001:db8::1%eth0]:80."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(_CACHED_PEERS)
def _format_source(address: IpAddress) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, _HOST_BITS), strict=False))
