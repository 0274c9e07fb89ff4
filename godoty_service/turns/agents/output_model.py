"""A model that answers by an output schema: it answers again until its answer is valid, at most three times.

Two ways lead to such an answer: the provider's own (`response_format`), and a tool whose input is the answer. Whichever
it was, the conversation gets the valid value as a text, so that it can be continued with any model, and without the
tool. What was not valid reaches neither the readers nor the conversation.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Literal

import structlog
from strands.types.content import Messages
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolChoice, ToolChoiceAny, ToolSpec

from godoty_service.agents.output.schema import OutputSchema
from godoty_service.agents.output.schemas import check_answer
from godoty_service.citations import Citation
from godoty_service.errors import ModelUnavailable, ProviderRejectedRequest
from godoty_service.ledger.entries import CallPurpose
from godoty_service.openrouter.decoding.stream_decoder import Listener
from godoty_service.openrouter.model import LISTENER, OpenRouterModel
from godoty_service.turns.agents.output_answer import OutputAnswer
from godoty_service.turns.agents.output_way import OutputWay

log = structlog.get_logger(__name__)

MAX_TRIES: Final = 3  # of one turn, the first among them
TOOL: Final = "final_answer"
_DESCRIPTION: Final = (
    "Gives the final answer by the input schema. Call it once, at the end, instead of writing the answer."
)
_MUST_CALL: Final[dict[Literal["any"], ToolChoiceAny]] = {"any": ToolChoiceAny()}
_REFUSALS: Final = (ProviderRejectedRequest, ModelUnavailable)  # perhaps because of `response_format`


class OutputInvalid(Exception):
    """No answer was valid by the output schema."""


class _DeferredListener:
    """A listener without the text and its citations, which readers get once the text is known to be valid."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._citations: list[Citation] = []

    def on_request(self) -> None:
        """Pass it on."""
        self._listener.on_request()

    def text(self, piece: str) -> None:
        """Do nothing: the events of the answer have it, too."""

    def reasoning(self, piece: str) -> None:
        """Pass it on."""
        self._listener.reasoning(piece)

    def citations(self, found: Sequence[Citation]) -> None:
        """Keep them."""
        self._citations += found

    def release(self, text: str, *, changed: bool) -> None:
        """Pass on a text and the citations; of one that is not as it came, these have no position."""
        if text:
            self._listener.text(text)
        if self._citations:
            placed = [replace(each, start=0, end=0) for each in self._citations] if changed else self._citations
            self._listener.citations(placed)


class OutputModel(OpenRouterModel):
    """A model whose agent answers by an output schema."""

    def __init__(self, *, schema: OutputSchema, way: OutputWay, **options: Any) -> None:
        """Build it.

        Args:
            schema: The schema.
            way: How the model can be made to answer by it.
            options: As of `OpenRouterModel`.
        """
        super().__init__(**options)
        self._schema = schema
        self._way = way
        self._native = way.native
        self._tries = 0
        self._used: Counter[str] = Counter()  # tokens of answers that were not valid
        self._correction: Messages = []  # the last of them, and why it was not

    async def stream(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None = None,
        system_prompt: str | None = None,
        *,
        tool_choice: ToolChoice | None = None,
        invocation_state: dict[str, Any] | None = None,
        **others: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Request answers until one is valid, is cut, or calls other tools; stream that one.

        Raises:
            OutputInvalid: None was.
            TurnTooLarge: The value does not fit the turn's log.
            ProviderError, StorageUnavailable, ModelCallsSpent, MaxTokensReachedException: As `OpenRouterModel.stream`.
        """
        state, request = invocation_state or {}, {"system_prompt": system_prompt, **others}
        listener: Listener | None = state.get(LISTENER)
        if listener is None:  # a summary
            side = super().stream(messages, tool_specs, tool_choice=tool_choice, invocation_state=state, **request)
            async with aclosing(side) as events:
                async for event in events:
                    yield event
            return
        tool = _free_name(tool_specs or [])
        while True:
            answer, deferred = OutputAnswer(tool), _DeferredListener(listener)
            request["invocation_state"] = {**state, LISTENER: deferred}
            async with aclosing(
                self._request_answer(answer, tool, messages, tool_specs or [], request)
            ) as failed_calls:
                async for event in failed_calls:
                    yield event
            output, fault = await self._checked(answer)
            if fault is None:
                deferred.release(answer.text if output is None else output, changed=output not in (None, answer.text))
            if answer.call is not None:  # after the text, as for other answers
                yield answer.call
            if fault is None:
                for event in self._accept(answer, output):
                    yield event
                return
            self._refuse(answer, fault)

    async def _request_answer(
        self,
        answer: OutputAnswer,
        tool: str,
        messages: Messages,
        tool_specs: list[ToolSpec],
        request: dict[str, Any],
    ) -> AsyncGenerator[StreamEvent, None]:
        """Request one answer; yield the ends of the calls that failed.

        Args:
            answer: Gets the answer.
            tool: The name of the tool for the answer.
            messages: The conversation.
            tool_specs: The agent's tools.
            request: The other arguments of `OpenRouterModel.stream`.
        """
        while True:
            specs, choice = self._form(tool_specs, tool)
            try:
                tried = super().stream([*messages, *self._correction], specs, tool_choice=choice, **request)
                async with aclosing(tried) as events:
                    async for event in events:
                        if answer.add(event):
                            yield event
            except _REFUSALS:
                if answer.begun or not self._leave_native_way():
                    raise
            else:
                return

    async def _checked(self, answer: OutputAnswer) -> tuple[str | None, str | None]:
        """Return the value of an answer, or why it is not valid; neither: it is not the final answer."""
        if not answer.is_whole:
            return None, None
        faults: list[str] = []
        for text, fault in answer.candidates:
            if fault is None:
                checked = await check_answer(self._schema, text)
                if checked.output is not None:
                    return checked.output, None
                fault = checked.fault  # noqa: PLW2901 - of the same candidate
            faults.append(fault or "")
        return None, faults[0]

    def _accept(self, answer: OutputAnswer, output: str | None) -> list[StreamEvent]:
        """Return the events of an answer that the conversation gets."""
        used, self._used = self._used, Counter()
        self._correction = []
        self.purpose = CallPurpose.AGENT
        self.output = output
        return list(answer.forwarded(used) if output is None else answer.answered(output, used))

    def _refuse(self, answer: OutputAnswer, fault: str) -> None:
        """Make the model answer again.

        Raises:
            OutputInvalid: It has answered as often as it may.
        """
        self._tries += 1
        log.info("output_invalid", tries=self._tries, native=self._native)
        if self._tries >= MAX_TRIES:
            raise OutputInvalid(
                f"None of {MAX_TRIES} answers was valid by the output schema; of the last one: {fault}."
            )
        self._used.update(answer.usage)
        self._correction = answer.correction(fault)
        self.purpose = CallPurpose.STRUCTURED_OUTPUT

    def _leave_native_way(self) -> bool:
        """Take the way by a tool, since the provider has refused its own; return whether there was one to leave.

        The refused request counts as not made: it has cost nothing.
        """
        if not (self._native and self._way.tools) or self._tries:
            return False
        self._native = False
        self._call_limits.return_call()
        log.info("response_format_refused")
        return True

    def _form(self, tool_specs: list[ToolSpec], tool: str) -> tuple[list[ToolSpec], ToolChoice | None]:
        """Set the form of the answer in the request's parameters; return the tools, and which the model must call."""
        if self._native:
            form = {"name": "answer", "strict": self._schema.guaranteed, "schema": self._schema.sent}
            self._parameters["response_format"] = {"type": "json_schema", "json_schema": form}
            self._parameters["provider"] = {"require_parameters": True}  # endpoints of one model differ in it
            return tool_specs, None
        for name in ("response_format", "provider"):
            self._parameters.pop(name, None)
        spec: ToolSpec = {"name": tool, "description": _DESCRIPTION, "inputSchema": {"json": self._schema.sent}}
        return [*tool_specs, spec], _MUST_CALL if self._way.forced else None


def _free_name(tool_specs: list[ToolSpec]) -> str:
    """Return a name for the tool for the answer that no other tool has."""
    taken = {each["name"] for each in tool_specs}
    name = TOOL
    while name in taken:
        name += "_"
    return name
