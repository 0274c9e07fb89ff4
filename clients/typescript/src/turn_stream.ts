/** The stream of one turn of the server, over as many connections as it takes. */
import { status } from "@grpc/grpc-js";

import { type Calls, onAbort } from "./calls.js";
import { decode, GodotyError } from "./errors.js";
import type { AgentServiceService, ConverseRequest } from "./gen/godoty/v1/agent_service.js";
import { OnDisconnect, type TurnEvent, type TurnFinished } from "./gen/godoty/v1/turn.js";
import { Retries } from "./retries.js";

const LEAVE_MS = 5_000; // the time in which a turn that is left must be cancelled

export class TurnStream {
  /** The id of the turn. Empty: no event has arrived. */
  id = "";
  /** The turn's end. */
  finished: TurnFinished | undefined;
  /** How often the stream was opened anew. */
  reconnects = 0;

  readonly #agents: Calls<typeof AgentServiceService>;
  readonly #request: Partial<ConverseRequest>;
  readonly #retries: Retries;
  readonly #signal: AbortSignal; // leaves the turn
  #sequence = 0n;
  #failed = false; // the server has ended the turn with an error

  constructor(agents: Calls<typeof AgentServiceService>, request: Partial<ConverseRequest>, signal: AbortSignal) {
    const grace = request.disconnectGrace;
    this.#agents = agents;
    this.#request = request;
    this.#retries = new Retries(Number(grace?.seconds ?? 0n) * 1000 + (grace?.nanos ?? 0) / 1e6);
    this.#signal = signal;
  }

  /** Yields the events; leaving them before the end cancels the turn. */
  async *events(): AsyncGenerator<TurnEvent, void> {
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
    if (event.event?.$case === "turnFinished") this.finished = event.event.value;
    return true;
  }

  /** Waits until the stream can be opened anew, or throws the error with which the turn ended. */
  async #lost(error: unknown): Promise<void> {
    if (this.finished) return;
    this.#checkSignal();
    if (error instanceof GodotyError) this.#failed = error.reason !== "" && !error.lostConnection;
    if (!(await this.#retries.again(error, this.id !== "", this.#signal))) throw error;
    this.reconnects += 1;
  }

  #checkSignal(): void {
    if (this.#signal.aborted && !this.finished) throw leftError(this.#signal);
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

/** Returns the error of a turn that was left by its signal. */
export function leftError(signal: AbortSignal): GodotyError {
  const { reason } = signal as { reason: unknown };
  const late = reason instanceof Error && reason.name === "TimeoutError";
  return new GodotyError(
    late ? status.DEADLINE_EXCEEDED : status.CANCELLED,
    late ? "the turn's deadline has passed" : "the turn was left",
    undefined,
    { cause: reason },
  );
}
