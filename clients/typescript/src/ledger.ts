/** The export of the ledger, which survives lost connections. */
import type { Calls } from "./calls.js";
import type { BillingServiceService, ExportLedgerRequest } from "./gen/godoty/v1/billing_service.js";
import type { LedgerEntry } from "./gen/godoty/v1/ledger.js";
import { Retries } from "./retries.js";

/**
 * An export of the ledger: an async iterable of its entries, oldest first. If the connection is lost, it goes on after the
 * last entries that arrived: no entry comes twice, and none is missing.
 */
export class LedgerExport implements AsyncIterable<LedgerEntry> {
  /**
   * The position from which a later export of the same range goes on, on any server: after the entries of the last response
   * that was read whole. Empty: the beginning.
   */
  cursor: string;
  /** The time by which the export's entries were inserted. Undefined: no response has arrived. */
  asOf: Date | undefined;

  readonly #billing: Calls<typeof BillingServiceService>;
  readonly #request: Partial<ExportLedgerRequest>;
  readonly #retries: Retries;
  readonly #signal: AbortSignal;

  /** Use `Godoty.exportLedger`. */
  constructor(
    billing: Calls<typeof BillingServiceService>,
    request: Partial<ExportLedgerRequest>,
    graceMs: number,
    signal: AbortSignal,
  ) {
    this.#billing = billing;
    this.#request = request;
    this.#retries = new Retries(graceMs);
    this.#signal = signal;
    this.cursor = request.cursor ?? "";
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<LedgerEntry, void> {
    for (;;) {
      try {
        const request = { ...this.#request, cursor: this.cursor };
        for await (const response of this.#billing.exportLedger(request, { signal: this.#signal })) {
          this.#retries.reset();
          this.asOf ??= response.asOf;
          yield* response.entries;
          this.cursor = response.cursor;
        }
        return;
      } catch (error) {
        if (this.#signal.aborted || !(await this.#retries.again(error, this.cursor !== "", this.#signal))) throw error;
      }
    }
  }
}
