"""Pauses become longer while nothing changes."""

from godoty_service.aio.backoff import Backoff


def test_pause_doubles_up_to_the_longest() -> None:
    """After a change, the shortest pause is the next one."""
    backoff = Backoff(0.1, 0.5)
    quiet = [backoff.next() for _ in range(4)]

    assert quiet == [0.1, 0.2, 0.4, 0.5]
    assert [backoff.next(changed=True), backoff.next(), backoff.next()] == [0.1, 0.2, 0.4]
