"""The measurements of the answers."""

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.generator.answers import texts
from bench.generator.exchange import Exchange
from bench.generator.plan import Load, Target

_SHARES = (0.5, 0.95, 0.99, 1.0)


@dataclass
class Measures:
    """The measurements of all answers; times in seconds, one for each answer unless noted otherwise.

    Attributes:
        first: Time to first token.
        whole: Time to the end of the answer.
        held: The delay of each token behind its schedule, of all answers: the paced token with the least delay
            of its answer sets the schedule. Empty if the load is not paced.
        messages: Pieces of text in all: fewer than tokens where some were merged.
        faults: What went wrong, the first few.
        failed: How many answers were not exactly the expected text.
        elapsed: From the first request to the end of the last answer.
        cpu: CPU time of the load generator meanwhile.
    """

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    messages: int = 0
    faults: list[str] = field(default_factory=list)
    failed: int = 0
    elapsed: float = 0.0
    cpu: float = 0.0

    def add(self, target: Target, load: Load, exchange: Exchange, fault: str | None) -> None:
        """Add an answer."""
        try:
            pieces = list(texts(target, exchange)) if fault is None else []
        except (ValueError, KeyError) as error:
            pieces, fault = [], f"cannot be read: {error!r}"
        if fault is None and (text := "".join(text for _, text in pieces)) != _expected(load):
            fault = f"text of {len(text)} characters differs from the expected one: {text[:80]!r}"
        if fault is not None:
            self.failed += 1
            self.faults = [*self.faults, fault][:5]
            return
        self.first.append(pieces[0][0] - exchange.begun)
        self.whole.append(exchange.ended - exchange.begun)
        self.messages += len(pieces)
        if load.rate:
            self.held += _delays(pieces, load)

    def as_dict(self) -> dict[str, Any]:
        """Return the result; of `held` only the median, the 95th and 99th percentile and the maximum."""
        held = sorted(self.held)
        return {**asdict(self), "held": [held[int((len(held) - 1) * share)] for share in _SHARES] if held else []}


def _expected(load: Load) -> str:
    return "".join(f"t{number} " for number in range(load.tokens))


def _delays(pieces: list[tuple[float, str]], load: Load) -> list[float]:
    late: list[float] = []
    for when, text in pieces:
        late += [when - (len(late) + more) / load.rate for more in range(text.count(" "))]
    least = min(late)
    return [each - least for each in late]
