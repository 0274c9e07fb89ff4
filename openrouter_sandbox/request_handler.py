"""Handles one chat request: selects the scenario, routes the request and sends the response."""

import asyncio
from typing import Any

from starlette.requests import Request

from openrouter_sandbox.accounts import authenticate
from openrouter_sandbox.answers import answer_generator
from openrouter_sandbox.answers.server_tools import check_server_tools
from openrouter_sandbox.billing.generation import Generation
from openrouter_sandbox.conversation import Conversation, RequestError
from openrouter_sandbox.decimal_json import loads
from openrouter_sandbox.models.catalogue import Endpoint, Model
from openrouter_sandbox.models.routing import route
from openrouter_sandbox.replay import Recording, ReplayedGeneration
from openrouter_sandbox.scenarios.scenario import Scenario, ScenarioError
from openrouter_sandbox.state import SandboxState
from openrouter_sandbox.streaming.client_connection import ClientConnection
from openrouter_sandbox.streaming.error_responses import respond_error, respond_request_error
from openrouter_sandbox.streaming.response_streamer import ResponseStreamer
from openrouter_sandbox.strictness import check_messages as check_strictly


class RequestHandler:
    """Handles one chat request."""

    def __init__(self, state: SandboxState, request: Request, body: bytes, connection: ClientConnection) -> None:
        self.connection = connection
        self._state = state
        self._request = request
        self._body = body
        self._account = ""
        self._generation: Generation | None = None

    async def run(self) -> None:
        """Send the response; an invalid request gets OpenRouter's error body."""
        try:
            await self._answer()
        except ScenarioError as error:
            await respond_request_error(self.connection, RequestError(400, str(error)))
        except RequestError as error:
            await respond_request_error(self.connection, error)

    def on_disconnect(self) -> dict[str, Any]:
        """Bill the aborted generation, if any, and return its id and the number of tokens produced."""
        generation = self._generation
        if generation is None:
            return {"generation_id": None, "produced": 0}
        if generation.started:  # until then no provider has worked on it, so nothing is charged
            generation.abort()
        return {"generation_id": generation.id, "produced": generation.produced_tokens}

    async def _answer(self) -> None:
        self._account = authenticate(self._request)
        conversation = Conversation(self._parsed())
        scenario = self._scenario(conversation)
        self._log_request(conversation, scenario)
        if scenario.has("file"):
            await self._replay(conversation, scenario)
            return
        model, endpoint = route(self._state.catalogue, conversation, scenario)
        conversation = conversation.without(endpoint.ignored)
        self._check_context(conversation, model)
        check_server_tools(conversation)
        _check_inputs(conversation, model)
        check_strictly(conversation, self._state.billing.settings.strict)
        if await self._answered_with_error(scenario, endpoint):
            return
        await self._generate(conversation, scenario, model, endpoint)

    def _parsed(self) -> Any:
        try:
            return loads(self._body)
        except ValueError:
            raise RequestError(400, "Request body is not valid JSON") from None

    def _scenario(self, conversation: Conversation) -> Scenario:
        model = (conversation.candidates or [""])[0]
        scenario = self._state.scenarios.choose(conversation.last_text, model)
        scenario = scenario.at_step(answer_generator.tool_loop_step(conversation, scenario))
        if scenario.has("times"):
            request = (self._account, conversation.body.get("user"), conversation.body.get("session_id"))
            marker = f"{request} {scenario.name} {conversation.fingerprint}"
            if not self._state.scenarios.record_failure(marker, scenario.number("times")):
                return scenario.without_faults()
        return scenario

    def _log_request(self, conversation: Conversation, scenario: Scenario) -> None:
        if self._state.billing.settings.record_requests and not scenario.flag("flat"):
            reasoning = self._state.reasoning_check.check(conversation)
            self._state.request_log.append(
                self._request, conversation.body, account=self._account, scenario=scenario.name, reasoning=reasoning
            )

    def _check_context(self, conversation: Conversation, model: Model) -> None:
        """Raise RequestError (400), with the recorded message, if the prompt exceeds the model's context length."""
        if len(self._body) // 4 > model.context_length and conversation.prompt_tokens > model.context_length:
            limit, size = model.context_length, conversation.prompt_tokens
            text = (
                f"This endpoint's maximum context length is {limit} tokens. However, you requested about {size} tokens"
            )
            raise RequestError(400, f"{text} ({size} of text input). Please reduce the length of either one.")

    async def _answered_with_error(self, scenario: Scenario, endpoint: Endpoint) -> bool:
        """Send the scenario's error response, if it has one; return whether it was sent."""
        if not scenario.has("status") and not scenario.has("body_status"):
            return False
        body_status = scenario.number("body_status") if scenario.has("body_status") else None
        status = scenario.number("status", 200)
        await respond_error(self.connection, status, scenario, provider=endpoint.provider, body_status=body_status)
        return True

    async def _generate(self, conversation: Conversation, scenario: Scenario, model: Model, endpoint: Endpoint) -> None:
        generation = Generation(
            account=self._account,
            conversation=conversation,
            scenario=scenario,
            model=model,
            endpoint=endpoint,
            answer=answer_generator.generate_answer(conversation, scenario),
            billing=self._state.billing,
            with_metadata=self._request.headers.get("x-openrouter-metadata") == "enabled",
        )
        self._generation = generation
        self._state.reasoning_check.remember(generation.answer)
        if scenario.flag("bill_first"):
            generation.finish()
        await asyncio.sleep(scenario.number("headers_ms") / 1000)
        await ResponseStreamer(self.connection, generation, self._state.billing.settings, self._state.holds).run()

    async def _replay(self, conversation: Conversation, scenario: Scenario) -> None:
        recording = Recording.read(self._state.recorded, scenario.text("file"))
        replayed = ReplayedGeneration(recording, self._account, conversation, scenario)
        replayed.bill(self._state.billing, self._state.catalogue)
        headers = {"x-generation-id": replayed.id} if replayed.usage else None
        await self.connection.start(recording.status, recording.content_type, headers)
        delay = scenario.number("delay_ms") / 1000
        for part in recording.parts if delay else [recording.data]:
            await self.connection.write(part)
            await asyncio.sleep(delay)
        await self.connection.end()


def _check_inputs(conversation: Conversation, model: Model) -> None:
    """Raise RequestError (404), as OpenRouter does, if the model takes no images; files are parsed to text."""
    if any(each.kind == "image" for each in conversation.media) and "image" not in model.inputs:
        raise RequestError(404, "No endpoints found that support image input")
