"""The error of the service behind what an agent's loop raises."""

from godoty_service.errors import GodotyError


def wrapped_error(failure: BaseException) -> GodotyError | None:
    """Return the service's error inside those that Strands wrapped around it; None: there is none."""
    inner: BaseException | None = failure
    while inner is not None:
        if isinstance(inner, GodotyError):
            return inner
        inner = getattr(inner, "original_exception", None) or inner.__cause__
    return None
