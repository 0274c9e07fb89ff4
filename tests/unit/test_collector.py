"""The garbage collector: out of the way of imports, and of what is there to stay."""

import gc
from collections.abc import Iterator

import pytest

from godoty_service.collector import importing, settle


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    """Put back what the tests change."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def import_and_fail(made: list[list[int]]) -> None:
    with importing():
        assert not gc.isenabled()
        made.extend([number] for number in range(1000))
        raise ImportError


@pytest.mark.parametrize("enabled", [True, False])
def test_imports_are_not_collected(*, enabled: bool) -> None:
    """Nothing is collected meanwhile, also where the import fails; afterwards it is as it was before."""
    if not enabled:
        gc.disable()
    frozen = gc.get_freeze_count()
    made: list[list[int]] = []
    with pytest.raises(ImportError):
        import_and_fail(made)

    assert gc.isenabled() is enabled
    assert gc.get_freeze_count() - frozen >= len(made) == 1000


def test_what_is_there_is_not_looked_at_again() -> None:
    """What stays is frozen; what comes later is still collected, and cycles of it do not stay."""
    frozen = gc.get_freeze_count()
    stays = [[number] for number in range(1000)]
    settle()
    assert gc.get_freeze_count() - frozen >= len(stays)
    assert gc.get_threshold()[0] > 700
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle

    assert gc.collect() >= 1
