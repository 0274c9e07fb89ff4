"""The garbage collector is paused during imports, and does not scan permanent objects."""

import gc
from collections.abc import Iterator

import pytest

from godoty_service.aio.gc import freeze_gc, pause_gc_for_imports


@pytest.fixture(autouse=True)
def _restored_gc() -> Iterator[None]:
    """Restore the collector's state."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def import_and_fail(made: list[list[int]]) -> None:
    with pause_gc_for_imports():
        assert not gc.isenabled()
        made.extend([number] for number in range(1000))
        raise ImportError


@pytest.mark.parametrize("enabled", [True, False])
def test_imports_are_not_collected(*, enabled: bool) -> None:
    """The collector is disabled during imports, and restored afterwards, even if an import fails."""
    if not enabled:
        gc.disable()
    frozen = gc.get_freeze_count()
    made: list[list[int]] = []
    with pytest.raises(ImportError):
        import_and_fail(made)

    assert gc.isenabled() is enabled
    assert gc.get_freeze_count() - frozen >= len(made) == 1000


def test_frozen_objects_are_not_scanned() -> None:
    """Present objects are frozen; later ones are still collected, including cycles."""
    frozen = gc.get_freeze_count()
    stays = [[number] for number in range(1000)]
    freeze_gc()
    assert gc.get_freeze_count() - frozen >= len(stays)
    assert gc.get_threshold()[0] > 700
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle

    assert gc.collect() >= 1
