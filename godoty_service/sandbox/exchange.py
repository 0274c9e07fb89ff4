"""One exchange: a request, the scenario that answers it, and the response."""

import asyncio
from typing import Any

from starlette.requests import Request

from godoty_service.sandbox import author
from godoty_service.sandbox.accounts import authenticate
from godoty_service.sandbox.catalogue import Endpoint, Model
from godoty_service.sandbox.channel import Channel
from godoty_service.sandbox.conversation import Conversation, RequestError
from godoty_service.sandbox.delivery import Delivery
from godoty_service.sandbox.desk import Desk
from godoty_service.sandbox.exact import loads
from godoty_service.sandbox.faults import respond_error, respond_refusal
from godoty_service.sandbox.generation import Generation
from godoty_service.sandbox.replay import Recording, ReplayedGeneration
from godoty_service.sandbox.routing import route
from godoty_service.sandbox.scenario import Scenario, ScenarioError
from godoty_service.sandbox.strictness import check as check_strictly


class Exchange:
    """One request and its response."""

    def __init__(self, desk: Desk, request: Request, body: bytes, channel: Channel) -> None:
        self.channel = channel
        self._desk = desk
        self._request = request
        self._body = body
        self._account = ""
        self._generation: Generation | None = None

    async def run(self) -> None:
        """Answer; what cannot be served is refused with OpenRouter's error body."""
        try:
            await self._answer()
        except ScenarioError as error:
            await respond_refusal(self.channel, RequestError(400, str(error)))
        except RequestError as error:
            await respond_refusal(self.channel, error)

    def abandoned(self) -> dict[str, Any]:
        """The client has left: bill what is to be billed; returns what is known of the exchange."""
        generation = self._generation
        if generation is None:
            return {"generation_id": None, "produced": 0}
        if generation.started:  # before that no provider was at work, and nothing is owed
            generation.abort()
        return {"generation_id": generation.id, "produced": generation.produced}

    async def _answer(self) -> None:
        self._account = authenticate(self._request)
        conversation = Conversation(self._parsed())
        scenario = self._scenario(conversation)
        self._note(conversation, scenario)
        if scenario.has("file"):
            await self._replay(conversation, scenario)
            return
        model, endpoint = route(self._desk.catalogue, conversation, scenario)
        self._check_context(conversation, model)
        check_strictly(conversation, self._desk.books.settings.strict)
        if await self._failed(scenario, endpoint):
            return
        await self._generate(conversation, scenario, model, endpoint)

    def _parsed(self) -> Any:
        try:
            return loads(self._body)
        except ValueError:
            raise RequestError(400, "Request body is not valid JSON") from None

    def _scenario(self, conversation: Conversation) -> Scenario:
        model = (conversation.candidates or [""])[0]
        scenario = self._desk.scenarios.choose(conversation.last_text, model)
        scenario = scenario.at_step(author.step_of(conversation, scenario))
        if scenario.has("times"):
            request = (self._account, conversation.body.get("user"), conversation.body.get("session_id"))
            marker = f"{request} {scenario.name} {conversation.fingerprint}"
            if not self._desk.scenarios.may_fail(marker, scenario.number("times")):
                return scenario.without_faults()
        return scenario

    def _note(self, conversation: Conversation, scenario: Scenario) -> None:
        if self._desk.books.settings.record_requests and not scenario.flag("flat"):
            reasoning = self._desk.trail.check(conversation)
            self._desk.journal.note(
                self._request, conversation.body, account=self._account, scenario=scenario.name, reasoning=reasoning
            )

    def _check_context(self, conversation: Conversation, model: Model) -> None:
        """Refuse a request that does not fit the model, as recorded."""
        if len(self._body) // 4 > model.context_length and conversation.prompt_tokens > model.context_length:
            most, asked = model.context_length, conversation.prompt_tokens
            text = (
                f"This endpoint's maximum context length is {most} tokens. However, you requested about {asked} tokens"
            )
            raise RequestError(400, f"{text} ({asked} of text input). Please reduce the length of either one.")

    async def _failed(self, scenario: Scenario, endpoint: Endpoint) -> bool:
        """Answer with an error before any generation, when the scenario wants one."""
        if not scenario.has("status") and not scenario.has("body_status"):
            return False
        body_status = scenario.number("body_status") if scenario.has("body_status") else None
        status = scenario.number("status", 200)
        await respond_error(self.channel, status, scenario, provider=endpoint.provider, body_status=body_status)
        return True

    async def _generate(self, conversation: Conversation, scenario: Scenario, model: Model, endpoint: Endpoint) -> None:
        generation = Generation(
            account=self._account,
            conversation=conversation,
            scenario=scenario,
            model=model,
            endpoint=endpoint,
            answer=author.write(conversation, scenario),
            books=self._desk.books,
        )
        self._generation = generation
        self._desk.trail.remember(generation.answer)
        if scenario.flag("bill_first"):
            generation.finish()
        await asyncio.sleep(scenario.number("headers_ms") / 1000)
        await Delivery(self.channel, generation, self._desk.books.settings, self._desk.holds).run()

    async def _replay(self, conversation: Conversation, scenario: Scenario) -> None:
        recording = Recording.read(self._desk.recorded, scenario.text("file"))
        replayed = ReplayedGeneration(recording, self._account, conversation, scenario)
        replayed.bill(self._desk.books, self._desk.catalogue)
        headers = {"x-generation-id": replayed.id} if replayed.usage else None
        await self.channel.start(recording.status, recording.content_type, headers)
        delay = scenario.number("delay_ms") / 1000
        for part in recording.parts if delay else [recording.data]:
            await self.channel.write(part)
            await asyncio.sleep(delay)
        await self.channel.end()
