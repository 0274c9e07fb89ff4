"""The output schemas of a server: parsed in a thread, and kept for the turns that follow."""

import asyncio
from dataclasses import dataclass
from typing import Final

from godoty_service.agents.output.schema import CheckedAnswer, OutputSchema
from godoty_service.aio.caching import TtlCache
from godoty_service.errors import InvalidRequest

_KEPT: Final = 64  # of at most 32 Ki characters each


@dataclass(frozen=True, slots=True)
class ReadSchema:
    """A schema of a request; exactly one field is set if it has one.

    Attributes:
        schema: The schema.
        fault: What it must be, since it is not valid.
    """

    schema: OutputSchema | None = None
    fault: str | None = None


NO_SCHEMA: Final = ReadSchema()


class OutputSchemas:
    """Parses schemas."""

    def __init__(self) -> None:
        self._parsed: TtlCache[str, OutputSchema] = TtlCache(size=_KEPT)

    async def read(self, text: str) -> ReadSchema:
        """Read the schema of a request; an empty text is none."""
        if not text:
            return NO_SCHEMA
        try:
            return ReadSchema(schema=await self._get(text))
        except ValueError as error:
            return ReadSchema(fault=str(error))

    async def stored(self, text: str) -> OutputSchema | None:
        """Return the schema of a stored definition; None: it has none.

        Raises:
            InvalidRequest: This build refuses it.
        """
        if not text:
            return None
        try:
            return await self._get(text)
        except ValueError as error:
            raise InvalidRequest.of("agent", f"its output_schema {error}: apply another one") from None

    async def _get(self, text: str) -> OutputSchema:
        if (known := self._parsed.get(text)) is not None:
            return known
        schema = await asyncio.to_thread(OutputSchema.parse, text)  # a short one may refer to itself in many ways
        self._parsed.put(text, schema)
        return schema


async def check_answer(schema: OutputSchema, answer: str) -> CheckedAnswer:
    """Check an answer in a thread: a short one may take as long as a long one."""
    return await asyncio.to_thread(schema.check, answer)
