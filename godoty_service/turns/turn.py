"""A turn of a conversation: a task that writes an event log, which any number of readers read."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any

from godoty_service.actions.action import NO_DECIDER, Answer, Decider, Step, StepCall
from godoty_service.agents.client_tools import ClientTool
from godoty_service.agents.definitions import AgentReference, AgentVersion, ModelParameters
from godoty_service.agents.output.schema import OutputSchema
from godoty_service.agents.profile import AgentInput, AgentProfile
from godoty_service.attachments.attachment import Attachment, AttachmentSource
from godoty_service.attachments.blocks import Block, block_of, user_content
from godoty_service.errors import GodotyError, InvalidApiKey, ModelNotAllowed
from godoty_service.ledger.entries import ModelCall
from godoty_service.openrouter.client_pool import ProviderClient
from godoty_service.tenancy.api_keys import KeyState
from godoty_service.tenancy.auth import NO_KEY_LIMITS, KeyLimits
from godoty_service.tenancy.errors import TenantDeleted, TenantSuspended
from godoty_service.tenancy.policies import NO_POLICY, Policy
from godoty_service.turns.event_log.events import ReadEvent
from godoty_service.turns.event_log.log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """A caller's request. None and empty: not given.

    Attributes:
        session_id: The caller's session id, or a generated one if the caller gave none.
        text: The user's text.
        model: The model to call.
        fallback_models: Models to try if it cannot answer.
        max_model_calls: The number of model calls that the agent may make.
        max_output_tokens: The output tokens of all calls together.
        max_cost: The cost of all calls together, in US dollars.
        user: The tenant's end user.
        request_id: Identifies retries of the request.
        fingerprint: Distinguishes the request from another one with the same id.
        wait: Wait while another turn of the session is running.
        go_on: Continue when no reader is left.
        disconnect_grace: The time without a reader after which a turn that is not to continue is cancelled.
        new_session: The caller gave no session id.
        agent: The agent; None: that of the session, or the default of a new one.
        variables: Values for the agent's prompt.
        parameters: Parameters of the model calls, in place of the agent's.
        output: The schema of the answer, in place of the agent's.
        attachments: What the text carries.
        client_tools: Tools that the caller runs, beside those of the agent.
        answers: Answers to open actions, in place of a text.
        step_id: The step that goes on by itself, as all of its actions are decided; empty: none does.
        decider: Who answers.
    """

    session_id: str
    text: str
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    max_model_calls: int | None = None
    max_output_tokens: int | None = None
    max_cost: Decimal | None = None
    user: str | None = None
    request_id: str | None = None
    fingerprint: str = ""
    wait: bool = False
    go_on: bool = False
    disconnect_grace: timedelta = timedelta()
    new_session: bool = False
    agent: AgentReference | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    parameters: ModelParameters | None = None
    output: OutputSchema | None = None
    attachments: tuple[AttachmentSource, ...] = ()
    client_tools: tuple[ClientTool, ...] = ()
    answers: tuple[Answer, ...] = ()
    step_id: str = ""
    decider: Decider = NO_DECIDER

    @property
    def continues(self) -> bool:
        """Whether it goes on with the turn that has asked, in place of a text."""
        return bool(self.answers or self.step_id)

    @property
    def agent_input(self) -> AgentInput:
        """What it sets for the agent."""
        return AgentInput(
            model=self.model,
            fallback_models=self.fallback_models,
            parameters=self.parameters,
            user=self.user,
            variables=self.variables,
            output=self.output,
            client_tools=self.client_tools,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitedStep:
    """The step with which a turn goes on.

    Attributes:
        step: The step.
        calls: Its calls, with the answers.
        version: The version of the agent that asked.
        entries: The ledger's entries of the turns before this one: their limits count for both.
    """

    step: Step
    calls: tuple[StepCall, ...]
    version: AgentVersion
    entries: tuple[ModelCall, ...]


class Turn:
    """A turn that runs in this server, or has just ended.

    Attributes:
        grace: The time without a reader after which it is cancelled; zero once the server stops.
        key_state: The state of its API key and tenant, as it was read last.
        epoch: The server's epoch in which the turn acquires its session.
        policy: The tenant's policy, as it was read last.
        log: The turn's events.
        task: The task that runs it.
        cancelled_by: The error that its readers get; None: it was cancelled by a caller, or was not cancelled.
        recorded: Its record may have been inserted.
        started: It has acquired its session.
        attachments: What its text carries, once it was looked up.
        user_reference: The reference of the session's end user, once it has its session; None: there is none.
        waited: The step with which it goes on, and its calls; None: it begins with a text.
    """

    def __init__(
        self,
        *,
        tenant_id: str,
        turn_id: str,
        request: TurnRequest,
        epoch: int,
        key_id: str | None = None,
        time: datetime | None = None,
        key_limits: KeyLimits = NO_KEY_LIMITS,
    ) -> None:
        """Initialize a turn.

        Args:
            tenant_id: The tenant.
            turn_id: The turn's id.
            request: The caller's request.
            epoch: The server's epoch in which the turn acquires its session.
            key_id: The API key that started it; None: no key, so none can be revoked.
            time: The current time; None: the system clock's.
            key_limits: The key's own limits.
        """
        self.tenant_id = tenant_id
        self.key_id = key_id
        self.key_limits = key_limits
        self.key_state = KeyState.IN_FORCE
        self.turn_id = turn_id
        self.request = request
        self.epoch = epoch
        self.policy = NO_POLICY
        self.log = EventLog(time)
        self.grace = request.disconnect_grace
        self.task: asyncio.Task[None] | None = None
        self.cancelled_by: GodotyError | None = None
        self.recorded = False
        self.started = False
        self.attachments: tuple[Attachment, ...] = ()
        self.user_reference: str | None = None
        self.waited: WaitedStep | None = None
        self._agent: AgentProfile | None = None
        self._client: ProviderClient | None = None
        self._in_cleanup = False

    def admit(self, *, policy: Policy, client: ProviderClient) -> None:
        """Set the tenant's policy and provider client, as they were read last."""
        self.policy = policy
        self._client = client

    def continue_with(self, request: TurnRequest, waited: WaitedStep) -> None:
        """Set the step with which it goes on, and the request with what the asking turn had set."""
        self.request = request
        self.waited = waited

    def take_agent(self, agent: AgentProfile) -> None:
        """Set the agent, once the session is acquired: it does not change until the turn ends."""
        self._agent = agent

    @property
    def agent(self) -> AgentProfile:
        """The agent.

        Raises:
            RuntimeError: The turn has not acquired its session.
        """
        if self._agent is None:
            raise RuntimeError("a turn has no agent before it has its session")
        return self._agent

    @property
    def attachment_blocks(self) -> list[Block]:
        """The content blocks of what its text carries."""
        return [block_of(each) for each in self.attachments]

    @property
    def prompt(self) -> Any:
        """The user's message, as an agent takes it: the text, or content blocks; None: the calls of the history run."""
        if self.waited is not None:
            return None
        return user_content(self.request.text, self.attachment_blocks) if self.attachments else self.request.text

    @property
    def provider_client(self) -> ProviderClient:
        """The provider client, whose key pays for the turn's calls.

        Raises:
            RuntimeError: The turn has not been admitted.
        """
        if self._client is None:
            raise RuntimeError("a turn calls no model before it is admitted")
        return self._client

    def check_key(self) -> None:
        """Check the state of the API key and the tenant, as it was read last: whether a model may be called.

        Raises:
            InvalidApiKey: The key was revoked or has expired.
            TenantSuspended: The tenant is suspended.
            TenantDeleted: The tenant is deleted.
        """
        match self.key_state:
            case KeyState.ENDED:
                raise InvalidApiKey("The API key that started the turn was revoked or has expired.")
            case KeyState.TENANT_SUSPENDED:
                raise TenantSuspended.of(self.tenant_id)
            case KeyState.TENANT_DELETED:
                raise TenantDeleted.of(self.tenant_id)

    def check_models(self, *models: str) -> None:
        """Check that the tenant's policy and the API key allow models.

        Raises:
            ModelNotAllowed: One of the two does not allow one of them.
        """
        for model in models:
            if not self.policy.allows(model):
                raise ModelNotAllowed("The tenant's policy does not allow the model.", metadata={"model": model})
            if not self.key_limits.allows(model):
                raise ModelNotAllowed("The API key does not allow the model.", metadata={"model": model})

    def events(self, *, after: int = 0, heartbeat: timedelta = timedelta()) -> AsyncGenerator[ReadEvent, None]:
        """Read the turn's events, as `EventLog.read` does.

        Raises:
            GodotyError: The turn failed.
        """
        return self.log.read(after=after, heartbeat=heartbeat)

    @property
    def unread(self) -> bool:
        """Whether the turn has lost its last reader here, and its grace has passed: it ends unless it is read remotely.

        A turn that is to continue does so only once it has begun: a queued turn without a reader ends.
        """
        if self.log.readers or self._in_cleanup or self.log.ended:
            return False
        if self.request.go_on:
            return self.request.wait and not self.log.sequence
        return monotonic() - self.log.left_at >= self.grace.total_seconds()

    def begin_cleanup(self) -> None:
        """Mark the turn as ending: from here on no cancel interrupts it."""
        self._in_cleanup = True

    def cancel(self, error: GodotyError | None = None) -> None:
        """Cancel the turn now, unless it is ending already.

        Args:
            error: The error that its readers get; None: that it was cancelled.
        """
        if self.task is not None and not self._in_cleanup and not self.log.ended:
            self.begin_cleanup()
            self.cancelled_by = error
            self.task.cancel()
