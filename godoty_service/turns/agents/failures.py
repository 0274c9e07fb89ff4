"""The error of the service behind what an agent's loop raises."""

from collections.abc import Iterator
from traceback import clear_frames

from godoty_service.errors import GodotyError


def wrapped_error(failure: BaseException) -> GodotyError | None:
    """Return the service's error inside those that Strands wrapped around it; None: there is none."""
    return next((each for each in _causes(failure) if isinstance(each, GodotyError)), None)


def release_frames(failure: BaseException) -> None:
    """Release the variables of the frames that a failure has passed, so that they are freed at once.

    Many a frame has the failure in a variable, and the failure has the frame in its traceback. Only a full garbage
    collection would free the two, and with them the conversation of the agent that failed.
    """
    for each in _causes(failure):
        clear_frames(each.__traceback__)


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that Strands wrapped in it."""
    inner: BaseException | None = failure
    while inner is not None:
        yield inner
        inner = getattr(inner, "original_exception", None) or inner.__cause__
