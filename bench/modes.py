"""The measured loads and their contenders."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.generator.plan import Load

ALL = ("direct", "litellm-proxy", "litellm-strands", "a2a", "openai-strands", "bare", "godoty")
SOME = ("direct", "litellm-proxy", "openai-strands", "bare", "godoty")
OURS = ("direct", "bare", "godoty")


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A load, its number of rounds, and its contenders.

    Attributes:
        title: A description.
        load: The load.
        rounds: Number of rounds; the order of the contenders rotates from one round to the next.
        contenders: The contenders.
        workers: Worker processes of Godoty, and of the bare libraries.
    """

    title: str
    load: Load
    rounds: int
    contenders: tuple[str, ...]
    workers: int = 1


PEERS: Mapping[str, Mode] = {
    "flat": Mode(
        title="Flat out: 16 streams, answers of 500 tokens as fast as they come",
        load=Load(streams=16, turns=2, tokens=500),
        rounds=5,
        contenders=ALL,
    ),
    "paced": Mode(
        title="Paced: 100 streams of 20 tokens a second",
        load=Load(streams=100, turns=1, tokens=200, rate=20),
        rounds=3,
        contenders=ALL,
    ),
    "fast": Mode(
        title="Paced: 100 streams of 60 tokens a second",
        load=Load(streams=100, turns=1, tokens=240, rate=60),
        rounds=2,
        contenders=SOME,
    ),
    "calm": Mode(
        title="Calm: 10 streams of 20 tokens a second, which leaves the CPU free",
        load=Load(streams=10, turns=1, tokens=100, rate=20),
        rounds=3,
        contenders=SOME,
    ),
    "first-1": Mode(
        title="Time to first token: 1 stream, short answers one after the other",
        load=Load(streams=1, turns=40, tokens=8),
        rounds=4,
        contenders=ALL,
    ),
    "first-20": Mode(
        title="Time to first token: 20 streams at once, short answers one after the other",
        load=Load(streams=20, turns=10, tokens=8),
        rounds=4,
        contenders=ALL,
    ),
}

MANY: Mapping[str, Mode] = {
    "500": Mode(
        title="Many: 500 streams of 20 tokens a second, asked for at once",
        load=Load(streams=500, turns=1, tokens=200, rate=20),
        rounds=3,
        contenders=OURS,
        workers=2,
    ),
    "1000": Mode(
        title="Many: 1,000 streams of 20 tokens a second, asked for at once",
        load=Load(streams=1000, turns=1, tokens=200, rate=20),
        rounds=3,
        contenders=OURS,
        workers=2,
    ),
}
