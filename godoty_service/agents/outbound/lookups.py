"""Look-ups of host names, in threads of their own: one takes as long as its name server.

A thread cannot be cancelled. In those that asyncio shares out, look-ups of one tenant's hosts would hold up all others,
the database's and the provider's among them. So a look-up has a thread of its own, which counts until it ends, also if
the wait for it is cancelled; and the look-ups of one owner are fewer than those of all.
"""

import asyncio
import ipaddress
import socket
import threading
from typing import Any, Final
from weakref import WeakValueDictionary

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Found = list[Any]  # what `socket.getaddrinfo` returns

_ALL = 32  # look-ups at once
_OF_ONE_OWNER = 4
_MAX_ADDRESSES: Final = 16  # of a name


class Lookups:
    """Look-ups by owner. Use it from one event loop."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(_ALL)
        self._owners: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def addresses(self, owner: str, host: str, port: int) -> list[Address]:
        """Return the addresses of a host; those of an address are itself, without a look-up.

        Args:
            owner: Whose host it is: a tenant, or empty for all together.
            host: The host.
            port: The port.

        Raises:
            OSError: It is unknown.
            UnicodeError: It can be no host.
        """
        try:
            return [ipaddress.ip_address(host.partition("%")[0])]
        except ValueError:
            pass
        found = await self._look_up(owner, host, port)
        return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found[:_MAX_ADDRESSES]]

    async def _look_up(self, owner: str, host: str, port: int) -> Found:
        """Look a name up in a thread, once there may be one; the thread goes on if the wait for it is cancelled."""
        slots = self._owners.setdefault(owner, asyncio.Semaphore(_OF_ONE_OWNER))
        await slots.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            slots.release()
            raise
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Found] = loop.create_future()

        def done(_: "asyncio.Future[Found]") -> None:
            self._all.release()
            slots.release()
            if not result.cancelled():
                result.exception()  # the wait for it may be cancelled

        result.add_done_callback(done)
        thread = threading.Thread(target=_run, args=(loop, result, host, port), name="lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many threads
            result.set_exception(OSError("no thread"))
        return await asyncio.shield(result)


def _run(loop: asyncio.AbstractEventLoop, result: "asyncio.Future[Found]", host: str, port: int) -> None:
    """Look a name up, and hand the result to the event loop, unless that was closed meanwhile."""
    try:
        found, failure = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), None
    except (OSError, UnicodeError, ValueError) as error:
        found, failure = [], error

    def finish() -> None:
        if failure is not None:
            result.set_exception(failure)
        else:
            result.set_result(found)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:  # the loop is closed
        return
