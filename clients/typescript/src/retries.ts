/** When a lost stream is opened anew. */
import { GodotyError } from "./errors.js";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 2_000;
/** A turn of which nothing was heard is tried for about two seconds: its server may not exist. */
const ATTEMPTS_TO_BEGIN = 6;

export class Retries {
  readonly #windowMs: number;
  #attempt = 0; // since the last message
  #lostAt = 0; // the time of the first of them

  /** The window is the time from the loss of a stream that has begun. */
  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  /** Is called with each message: the connection works. */
  reset(): void {
    this.#attempt = 0;
  }

  /** Waits until a stream that ended with an error can be opened anew; resolves to false if it is not to be. */
  async again(error: unknown, begun: boolean, signal: AbortSignal): Promise<boolean> {
    if (!(error instanceof GodotyError) || !error.lostConnection) return false;
    return this.#wait(begun, error.retryDelayMs ?? 0, signal);
  }

  /** Waits until the next attempt; resolves to false if there is none. The first one is made at once. */
  async #wait(begun: boolean, delayMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.#attempt === 0) this.#lostAt = performance.now();
    if (this.#attempt > 0) {
      const backoff = Math.min(FIRST_DELAY_MS * 2 ** (this.#attempt - 1), LONGEST_DELAY_MS);
      delayMs = Math.max(delayMs, backoff * (0.5 + Math.random() / 2));
    }
    this.#attempt += 1;
    const late = performance.now() - this.#lostAt + delayMs >= this.#windowMs;
    if (begun ? late : this.#attempt >= ATTEMPTS_TO_BEGIN) return false;
    await sleep(delayMs, signal);
    return true;
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();

    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
