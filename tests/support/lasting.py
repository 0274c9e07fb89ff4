"""A context that several files of tests use: it ends when the tests of their folder have run."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
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


def keep(session: pytest.Session, folder: Path, lasting: Lasting[Any]) -> None:
    """Have a context left after the last test of a folder."""
    session.stash.setdefault(_KEPT, {})[folder] = lasting


def leave_after(item: pytest.Item, nextitem: pytest.Item | None, folder: Path) -> None:
    """Leave a folder's context if the next test is in another one; a hook of the folder's conftest calls this."""
    lasting = item.session.stash.setdefault(_KEPT, {}).get(folder)
    if lasting is not None and nextitem is not None and not nextitem.path.is_relative_to(folder):
        lasting.leave()
