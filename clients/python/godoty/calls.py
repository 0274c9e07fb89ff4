"""RPCs as values, and the methods of clients that are made of them.

An operation is a function that returns the RPC to make and how to read its response. `Unary`, `Paged` and `Streamed`
make methods of it that block, or that are awaited, by the connection of the namespace that they are in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

if TYPE_CHECKING:
    from godoty.connection import AsyncConnection, Connection

_P = ParamSpec("_P")
_T = TypeVar("_T")
_C = TypeVar("_C", bound="Connection | AsyncConnection")


@dataclass(frozen=True)
class Call(Generic[_T]):
    """An RPC with one response.

    Attributes:
        method: The service and the method, such as "AgentService.GetSession".
        request: The message; the messages, if the client streams.
        read: Returns the result of the response.
        timeout: Its deadline in seconds, if that of the connection does not suit.
        repeatable: It has an id by which it counts once, so that it is made again while no server answers.
    """

    method: str
    request: Any
    read: Callable[[Any], _T]
    timeout: float | None = None
    repeatable: bool = False


@dataclass(frozen=True)
class Pages(Generic[_T]):
    """A paged RPC.

    Attributes:
        method: As in `Call`.
        request: The request of the first page, with a field `page_token`.
        items: Returns the results of a page.
    """

    method: str
    request: Any
    items: Callable[[Any], Iterable[_T]]

    def follow(self, page: Any) -> bool:
        """Turn the request into that of the next page; return False after the last one."""
        self.request.page_token = page.next_page_token
        return bool(page.next_page_token)


@dataclass(frozen=True)
class Stream(Generic[_T]):
    """An RPC with a stream of responses.

    Attributes:
        method: As in `Call`.
        request: The message.
        items: Returns the results of a response.
        resume: Changes the request so that another call continues after a response. None: it cannot be continued.
    """

    method: str
    request: Any
    items: Callable[[Any], Iterable[_T]]
    resume: Callable[[Any, Any], None] | None = None


class Namespace(Generic[_C]):
    """The methods of one subject, on a connection."""

    def __init__(self, connection: _C) -> None:
        self._connection = connection


class Unary(Generic[_P, _T]):
    """A method that returns the result of a call."""

    def __init__(self, operation: Callable[_P, Call[_T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Namespace[Connection], owner: type) -> Callable[_P, _T]: ...
    @overload
    def __get__(self, instance: Namespace[AsyncConnection], owner: type) -> Callable[_P, Coroutine[Any, Any, _T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the method of a namespace."""
        return self if instance is None else instance._connection.unary(self._operation)  # noqa: SLF001 - ours


class Paged(Generic[_P, _T]):
    """A method that iterates over the results of all pages, which are requested as they are needed."""

    def __init__(self, operation: Callable[_P, Pages[_T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Namespace[Connection], owner: type) -> Callable[_P, Iterator[_T]]: ...
    @overload
    def __get__(self, instance: Namespace[AsyncConnection], owner: type) -> Callable[_P, AsyncIterator[_T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the method of a namespace."""
        return self if instance is None else instance._connection.paged(self._operation)  # noqa: SLF001 - ours


class Streamed(Generic[_P, _T]):
    """A method that iterates over the results of a stream."""

    def __init__(self, operation: Callable[_P, Stream[_T]]) -> None:
        self._operation = operation
        self.__doc__ = operation.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Namespace[Connection], owner: type) -> Callable[_P, Iterator[_T]]: ...
    @overload
    def __get__(self, instance: Namespace[AsyncConnection], owner: type) -> Callable[_P, AsyncIterator[_T]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Return the method of a namespace."""
        return self if instance is None else instance._connection.streamed(self._operation)  # noqa: SLF001 - ours
