/** A turn, whose stream survives lost connections. */
import { randomUUID } from "node:crypto";

import { status } from "@grpc/grpc-js";

import { type Calls, onAbort } from "./calls.js";
import { decode, GodotyError } from "./errors.js";
import type { AgentServiceService, ConverseRequest } from "./gen/godoty/v1/agent_service.js";
import { Duration } from "./gen/google/protobuf/duration.js";
import { OnDisconnect, type TurnEvent, type TurnFinished } from "./gen/godoty/v1/turn.js";
import { Retries } from "./retries.js";

const LEAVE_MS = 5_000; // the time in which a turn that is left must be cancelled

export interface ConverseOptions {
  /** The deadline of the turn in milliseconds: it is cancelled then. By default none. */
  timeoutMs?: number;
  /** Cancels the turn. */
  signal?: AbortSignal;
}

/**
 * A turn of a conversation: an async iterable of its events, which can be read once, and what is known of it.
 *
 * If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event comes
 * twice, and none is missing. If the turn is left before its end (`break`, an abort, the deadline), it is cancelled, unless
 * its request says ON_DISCONNECT_CONTINUE. A heartbeat may occur at any time; the `event` of an event that this version
 * does not know is undefined: skip it.
 */
export class Turn implements AsyncIterable<TurnEvent> {
  /** The id of the turn. Empty: no event has arrived. */
  id = "";
  /** The session of the turn. Empty: the turn has not begun, and its request named none. */
  sessionId: string;
  /** The request id of the turn. */
  readonly requestId: string;
  /** The text of the answer so far. */
  text = "";
  /** The turn's end, with its stop reason and totals. Undefined: it has not ended, or ended with an error. */
  finished: TurnFinished | undefined;
  /** How often the stream was opened anew. */
  reconnects = 0;

  readonly #agents: Calls<typeof AgentServiceService>;
  readonly #request: Partial<ConverseRequest>;
  readonly #retries: Retries;
  readonly #signal: AbortSignal; // leaves the turn
  #sequence = 0n;
  #failed = false; // the server has ended the turn with an error
  readonly #events: AsyncGenerator<TurnEvent, void>;

  /** Use `Godoty.converse`. */
  constructor(
    agents: Calls<typeof AgentServiceService>,
    request: Partial<ConverseRequest>,
    graceMs: number,
    { timeoutMs, signal }: ConverseOptions,
  ) {
    const grace = request.disconnectGrace ?? durationOf(graceMs);
    this.#agents = agents;
    this.requestId = request.requestId || randomUUID();
    this.sessionId = request.sessionId ?? "";
    this.#request = { ...request, requestId: this.requestId, disconnectGrace: grace };
    this.#retries = new Retries(Number(grace.seconds) * 1000 + grace.nanos / 1e6);
    const signals = [signal, timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)];
    this.#signal = AbortSignal.any(signals.filter((each) => each !== undefined));
    this.#events = this.#read();
  }

  /** The cost of the turn in US dollars: an exact decimal. Undefined: it is not known. */
  get costUsd(): string | undefined {
    return this.finished?.turnTotals?.costUsd;
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
    let begun = false;
    try {
      while (!this.finished) {
        this.#checkSignal();
        begun = true;
        try {
          for await (const event of this.#open()) {
            const isNew = this.#accept(event);
            this.#checkSignal();
            if (isNew) yield event;
          }
          throw new GodotyError(status.UNAVAILABLE, "the stream ended before its turn");
        } catch (error) {
          await this.#lost(decode(error));
        }
      }
    } finally {
      if (begun) await this.#leave();
    }
  }

  /** Opens the stream: of a new turn until its id is known, then of its rest. */
  async *#open(): AsyncGenerator<TurnEvent, void> {
    const call = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    // A stream by which the id of its turn is still to come is not ended at once.
    const stop = onAbort(this.#signal, () => {
      if (this.id) call.abort();
      else timer = setTimeout(() => call.abort(), LEAVE_MS);
    });
    const responses = this.id
      ? this.#agents.resumeTurn({ turnId: this.id, afterSequence: this.#sequence }, { signal: call.signal })
      : this.#agents.converse(this.#request, { signal: call.signal });
    try {
      for await (const { event } of responses) if (event) yield event;
    } finally {
      stop();
      clearTimeout(timer);
    }
  }

  /** Records an event; returns false for one that the caller has seen. */
  #accept(event: TurnEvent): boolean {
    this.#retries.reset();
    this.id ||= event.turnId;
    if (event.event?.$case === "heartbeat") return true;
    if (event.sequence <= this.#sequence) return false;
    this.#sequence = event.sequence;
    if (event.event?.$case === "turnStarted") this.sessionId = event.event.value.sessionId;
    if (event.event?.$case === "textDelta") this.text += event.event.value.text;
    if (event.event?.$case === "turnFinished") this.finished = event.event.value;
    return true;
  }

  /** Waits until the stream can be opened anew, or throws the error with which the turn ended. */
  async #lost(error: unknown): Promise<void> {
    if (this.finished) return;
    this.#checkSignal();
    if (!(error instanceof GodotyError)) throw error;
    this.#failed = error.reason !== "" && !error.lostConnection;
    if (!error.lostConnection) throw error;
    if (!(await this.#retries.wait(this.id !== "", error.retryDelayMs ?? 0, this.#signal))) throw error;
    this.reconnects += 1;
  }

  #checkSignal(): void {
    if (!this.#signal.aborted || this.finished) return;
    const { reason } = this.#signal as { reason: unknown };
    const late = reason instanceof Error && reason.name === "TimeoutError";
    throw new GodotyError(
      late ? status.DEADLINE_EXCEEDED : status.CANCELLED,
      late ? "the turn's deadline has passed" : "the turn was left",
      undefined,
      { cause: reason },
    );
  }

  async #leave(): Promise<void> {
    const ended = this.finished !== undefined || this.#failed;
    if (!this.id || ended || this.#request.onDisconnect === OnDisconnect.ON_DISCONNECT_CONTINUE) return;
    try {
      await this.#agents.cancelTurn({ turnId: this.id }, { timeoutMs: LEAVE_MS, waitForReady: true });
    } catch {
      // The server cancels the turn after its disconnect grace.
    }
  }
}

function durationOf(milliseconds: number): Duration {
  const seconds = Math.floor(milliseconds / 1000);
  return Duration.create({ seconds: BigInt(seconds), nanos: Math.round((milliseconds - seconds * 1000) * 1e6) });
}
