"""When calls of a tool need approval. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The approval that calls of a tool need.

    Attributes:
        condition: A JSON schema, as `OutputSchema.text` has it: calls whose input is valid by it need approval; empty:
            all calls.
        reviewer: A key of the scope approve must answer; else one of the scope converse may, too.
        why: Why, for those who decide.
        closes_on_expiry: A call that is not answered in time closes its step, in place of being denied.
    """

    condition: str = ""
    reviewer: bool = False
    why: str = ""
    closes_on_expiry: bool = False

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return len(self.condition) + len(self.why)
