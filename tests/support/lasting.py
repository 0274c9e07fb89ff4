"""A context that several files of tests use: it ends when the tests of their folder have run."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

T = TypeVar("T")
_KEPT: pytest.StashKey[dict[Path, "Lasting[Any]"]] = pytest.StashKey()


class Lasting(Generic[T]):
    """A context that is entered by its first use, and again by one after it was left.

    A module's fixture returns its value, and a session's fixture leaves it in the end. `leave_after` leaves it sooner:
    a server that no test needs any more costs CPU time.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._entered: list[T] = []

    @property
    def value(self) -> T:
        """What the context yields."""
        if not self._entered:
            self._entered.append(self._stack.enter_context(self._make()))
        return self._entered[0]

    def leave(self) -> None:
        """Leave it, if it is entered."""
        self._entered.clear()
        self._stack.close()


@contextmanager
def lasting(
    request: pytest.FixtureRequest, folder: Path, make: Callable[[], AbstractContextManager[T]]
) -> Iterator[Lasting[T]]:
    """Make a context that is left after the last test of a folder: the body of a session's fixture."""
    one = Lasting(make)
    request.session.stash.setdefault(_KEPT, {})[folder] = one
    try:
        yield one
    finally:
        one.leave()


def leave_after(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Leave the context of a test's folder if the next test is in another one."""
    for folder, one in item.session.stash.get(_KEPT, {}).items():
        within = item.path.is_relative_to(folder)
        if within and nextitem is not None and not nextitem.path.is_relative_to(folder):
            one.leave()
