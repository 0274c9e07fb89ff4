"""The plan of a load, as one line of JSON."""

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Wire = Literal["grpc", "sse"]
Words = Literal["godoty", "openai", "a2a"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server, and the format of its answers.

    Attributes:
        host: The address.
        port: The port.
        path: The path of the request.
        wire: gRPC over HTTP/2, or server-sent events over HTTP/1.1.
        words: In what messages the text comes.
        headers: Headers (metadata) beside those that the wire needs.
        body: The request, the same each time: a serialised message, or JSON. `PROMPT_ID` in it becomes a new id.
    """

    host: str
    port: int
    path: str
    wire: Wire
    words: Words
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The size of the load.

    Attributes:
        streams: Requests at once.
        turns: Requests one after the other, on each stream.
        tokens: Tokens of each answer: "t0 t1 t2 ...".
        rate: Tokens a second of each stream; 0: as fast as they come.
        ramp: Seconds over which the streams start.
        timeout: Seconds after which the load is given up.
        streams_per_connection: How many streams share a connection, where the wire can.
    """

    streams: int
    turns: int
    tokens: int
    rate: float = 0.0
    ramp: float = 0.0
    timeout: float = 120.0
    streams_per_connection: int = 8

    @property
    def paced_seconds(self) -> float:
        """Seconds from the first token of an answer to its last, at the upstream."""
        return (self.tokens - 1) / self.rate if self.rate else 0.0

    @property
    def all_tokens(self) -> int:
        """Tokens of all answers."""
        return self.streams * self.turns * self.tokens


def to_line(target: Target, load: Load) -> str:
    """Return a plan as a line."""
    shown = {**asdict(target), "body": base64.b64encode(target.body).decode()}
    return json.dumps({"target": shown, "load": asdict(load)}) + "\n"


def from_line(line: str) -> tuple[Target, Load]:
    """Parse a plan."""
    plan: dict[str, Any] = json.loads(line)
    body = base64.b64decode(plan["target"].pop("body"))
    return Target(**plan["target"], body=body), Load(**plan["load"])
