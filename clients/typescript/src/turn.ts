/** A turn, whose stream survives lost connections, and whose actions are answered. */
import { randomUUID } from "node:crypto";

import { status } from "@grpc/grpc-js";

import { costOf, sumOf } from "./amounts.js";
import type { Calls } from "./calls.js";
import { GodotyError } from "./errors.js";
import type { Action, ActionResult } from "./gen/godoty/v1/action.js";
import type { AgentServiceService, ConverseRequest } from "./gen/godoty/v1/agent_service.js";
import { Duration } from "./gen/google/protobuf/duration.js";
import type { TurnEvent, TurnFinished } from "./gen/godoty/v1/turn.js";
import { Answers, type Approve, type Tool } from "./tools.js";
import { leftError, TurnStream } from "./turn_stream.js";

/** A request for a turn, with a text, or with answers to the actions of the session's last turn. */
export type TurnRequest = Partial<ConverseRequest> & ({ text: string } | { actionResults: ActionResult[] });

export interface ConverseOptions {
  /** The deadline of the turn in milliseconds: it is cancelled then. By default none. */
  timeoutMs?: number;
  /** Cancels the turn. */
  signal?: AbortSignal;
  /**
   * Tools that this program runs for the model, one after the other. A tool of the caller's that is not among them is
   * answered with an error, which the model sees; without any, the turn ends with its actions.
   */
  tools?: readonly Tool[];
  /**
   * Answers calls that need approval, before tools run. An error leaves the action open, and ends the turn's events.
   * Actions for a reviewer are not asked. Without it, the turn ends with its actions.
   */
  approve?: Approve;
}

/**
 * A turn of a conversation: an async iterable of its events, which can be read once, and what is known of it.
 *
 * If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event comes
 * twice, and none is missing. If the turn is left before its end (`break`, an abort, the deadline), it is cancelled, unless
 * its request says ON_DISCONNECT_CONTINUE. A heartbeat may occur at any time; the `event` of an event that this version
 * does not know is undefined: skip it.
 *
 * With the options `tools` or `approve`, a turn of the server that ends with STOP_REASON_ACTION_REQUIRED is followed by
 * another one, with the answers. All of them are one `Turn`: its events are those of each in order, with a `turnStarted`, a
 * `turnFinished` and sequences of its own; text and cost are those of all together.
 */
export class Turn implements AsyncIterable<TurnEvent> {
  /** The session of the turn. Empty: the turn has not begun, and its request named none. */
  sessionId: string;
  /** The request id of the turn; of several, that of the first. */
  readonly requestId: string;
  /** The text of the answer so far. */
  text = "";

  readonly #agents: Calls<typeof AgentServiceService>;
  readonly #request: Partial<ConverseRequest>;
  readonly #signal: AbortSignal; // leaves the turn
  readonly #answers: Answers;
  readonly #events: AsyncGenerator<TurnEvent, void>;
  readonly #costs: (string | undefined)[] = []; // of the turns before the last one
  #stream: TurnStream; // of the last turn of the server
  #asked: Action[] = []; // by that turn
  #reconnects = 0; // of the turns before it

  /** Use `Godoty.converse`. */
  constructor(
    agents: Calls<typeof AgentServiceService>,
    request: Partial<ConverseRequest>,
    graceMs: number,
    { timeoutMs, signal, tools = [], approve }: ConverseOptions,
  ) {
    const signals = [signal, timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)];
    this.#signal = AbortSignal.any(signals.filter((each) => each !== undefined));
    this.#answers = new Answers(tools, approve, this.#signal);
    this.#agents = agents;
    this.requestId = request.requestId || randomUUID();
    this.sessionId = request.sessionId ?? "";
    this.#request = {
      ...request,
      requestId: this.requestId,
      disconnectGrace: request.disconnectGrace ?? durationOf(graceMs),
      // One with answers has the tools of the turn that asked.
      clientTools: [...(request.clientTools ?? []), ...(request.actionResults?.length ? [] : this.#answers.declarations)],
    };
    this.#stream = new TurnStream(agents, this.#request, this.#signal);
    this.#events = this.#read();
  }

  /** The id of the turn; of several, that of the last. Empty: no event has arrived. */
  get id(): string {
    return this.#stream.id;
  }

  /** The turn's end, with its stop reason and totals; of several, that of the last. Undefined: it has not ended, or ended with an error. */
  get finished(): TurnFinished | undefined {
    return this.#stream.finished;
  }

  /** The cost of the turn in US dollars: an exact decimal. Undefined: it has not ended, or the cost of a call is not known. */
  get costUsd(): string | undefined {
    return sumOf([...this.#costs, costOf(this.finished?.turnTotals)]);
  }

  /**
   * The actions for which the turn waits, with their inputs, once it has ended with STOP_REASON_ACTION_REQUIRED. Answer them
   * in another turn of the session, by `actionResults` (`approve`, `deny`, `toolOutput`), or by `agents.decideAction`.
   */
  get actions(): Action[] {
    const open = new Set(this.finished?.actions.map(({ actionId }) => actionId));
    return this.#asked.filter(({ actionId }) => open.has(actionId));
  }

  /** How often a stream was opened anew. */
  get reconnects(): number {
    return this.#reconnects + this.#stream.reconnects;
  }

  [Symbol.asyncIterator](): AsyncGenerator<TurnEvent, void> {
    return this.#events;
  }

  /** Yields the parts of the answer's text, in place of all events. */
  async *deltas(): AsyncGenerator<string, void> {
    for await (const { event } of this) if (event?.$case === "textDelta") yield event.value.text;
  }

  /** Reads the turn to its end. */
  async end(): Promise<TurnFinished> {
    for await (const _ of this);
    if (!this.finished) throw new GodotyError(status.CANCELLED, "the turn was left");
    return this.finished;
  }

  async *#read(): AsyncGenerator<TurnEvent, void> {
    do {
      for await (const event of this.#stream.events()) {
        this.#record(event);
        yield event;
      }
    } while (await this.#follow());
  }

  #record({ event }: TurnEvent): void {
    if (event?.$case === "turnStarted") this.sessionId = event.value.sessionId;
    if (event?.$case === "textDelta") this.text += event.value.text;
    if (event?.$case === "actionRequired") this.#asked.push(event.value);
  }

  /** Lets the turn with the answers to the actions follow; resolves to false if there is none. */
  async #follow(): Promise<boolean> {
    let actionResults: ActionResult[];
    try {
      actionResults = await this.#answers.to(this.actions);
    } catch (error) {
      throw this.#signal.aborted ? leftError(this.#signal) : error;
    }
    if (!actionResults.length) return false;
    if (this.#signal.aborted) throw leftError(this.#signal);
    const { user, onBusy, onDisconnect, disconnectGrace } = this.#request; // the server has the rest
    const next = { sessionId: this.sessionId, requestId: randomUUID(), actionResults, user, onBusy, onDisconnect, disconnectGrace };
    this.#costs.push(costOf(this.finished?.turnTotals));
    this.#reconnects += this.#stream.reconnects;
    this.#asked = [];
    this.#stream = new TurnStream(this.#agents, next, this.#signal);
    return true;
  }
}

function durationOf(milliseconds: number): Duration {
  const seconds = Math.floor(milliseconds / 1000);
  return Duration.create({ seconds: BigInt(seconds), nanos: Math.round((milliseconds - seconds * 1000) * 1e6) });
}
