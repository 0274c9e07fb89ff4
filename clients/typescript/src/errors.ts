/** Errors of calls, with the details of google.rpc that Godoty sends. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { type ServiceError, status } from "@grpc/grpc-js";

import { ErrorReason } from "./gen/godoty/v1/errors.js";

const DOMAIN = "godoty.app";
const DETAILS = "grpc-status-details-bin";
const TYPES = "type.googleapis.com/google.rpc.";
/** Statuses of networks and proxies: all errors of Godoty have a reason, and the client sets no deadline of a stream. */
const OF_NETWORKS = new Set([
  status.UNAVAILABLE,
  status.INTERNAL,
  status.UNKNOWN,
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
]);
/** Reasons that say nothing of the turn: the server cannot be used now. */
const OF_SERVERS = new Set(["SHUTTING_DOWN", "STORAGE_UNAVAILABLE"]);

/** An invalid field of a request, and its constraint. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** A call failed. */
export class GodotyError extends Error {
  override readonly name = "GodotyError";
  /** The status of gRPC. */
  readonly code: status;
  /** The text of the server or of gRPC. */
  readonly details: string;
  /**
   * The name of an `ErrorReason` without its prefix, such as "SESSION_BUSY"; also one that this version does not know.
   * Empty: the error is gRPC's own, such as that of an unreachable server.
   */
  reason = "";
  /** What errors.proto documents for the reason. */
  metadata: Readonly<Record<string, string>> = {};
  /** The time to wait before a retry, in milliseconds. Undefined: the server gave none. */
  retryDelayMs: number | undefined;
  /** The invalid fields of the request. */
  fieldViolations: readonly FieldViolation[] = [];
  /** The limits that were reached, such as "budget/day". */
  quotas: readonly string[] = [];
  /** The name of the call in the server's log. */
  requestId = "";

  constructor(code: status, details: string, status?: Uint8Array, options?: ErrorOptions) {
    super(details, options);
    this.code = code;
    this.details = details;
    if (status) for (const detail of all(status, 3)) this.#add(detail);
    this.message = [statusName(code), this.reason, details].filter(Boolean).join(": ");
  }

  /** Whether the error has a reason of the contract. */
  hasReason(reason: ErrorReason): boolean {
    return this.reason !== "" && ErrorReason[reason] === `ERROR_REASON_${this.reason}`;
  }

  /** Whether it says nothing of a turn: the connection broke, or the server cannot be used now. */
  get lostConnection(): boolean {
    return this.reason ? OF_SERVERS.has(this.reason) : OF_NETWORKS.has(this.code);
  }

  #add(detail: Uint8Array): void {
    const value = first(detail, 2);
    switch (text(detail, 1)) {
      case `${TYPES}ErrorInfo`:
        if (text(value, 2) !== DOMAIN) return;
        this.reason = text(value, 1);
        this.metadata = Object.fromEntries(all(value, 3).map((entry) => [text(entry, 1), text(entry, 2)]));
        return;
      case `${TYPES}RetryInfo`: {
        const delay = first(value, 1);
        this.retryDelayMs = integer(delay, 1) * 1000 + integer(delay, 2) / 1e6;
        return;
      }
      case `${TYPES}RequestInfo`:
        this.requestId = text(value, 1);
        return;
      case `${TYPES}BadRequest`:
        this.fieldViolations = all(value, 1).map((each) => ({ field: text(each, 1), description: text(each, 2) }));
        return;
      case `${TYPES}QuotaFailure`:
        this.quotas = all(value, 1).map((each) => text(each, 1));
    }
  }
}

/** Returns an error of grpc-js as a `GodotyError`; any other error as it is. */
export function decode(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof GodotyError) return error;
  const { code, details, metadata } = error as Partial<ServiceError>;
  if (typeof code !== "number" || details === undefined) return error;
  const [found] = metadata?.get(DETAILS) ?? [];
  return new GodotyError(code, details, found instanceof Uint8Array ? found : undefined, { cause: error });
}

function statusName(code: status): string {
  return status[code] ?? String(code);
}

/** Returns the values of a field in a message's bytes: integers, or the bytes of strings and messages. */
function fields(message: Uint8Array, number: number): (number | Uint8Array)[] {
  const reader = new BinaryReader(message);
  const found: (number | Uint8Array)[] = [];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === number && wireType === 0) found.push(Number(reader.int64()));
    else if (field === number && wireType === 2) found.push(reader.bytes());
    else reader.skip(wireType, field);
  }
  return found;
}

function all(message: Uint8Array, number: number): Uint8Array[] {
  return fields(message, number).filter((value) => value instanceof Uint8Array);
}

function first(message: Uint8Array, number: number): Uint8Array {
  return all(message, number)[0] ?? new Uint8Array();
}

function text(message: Uint8Array, number: number): string {
  return new TextDecoder().decode(first(message, number));
}

function integer(message: Uint8Array, number: number): number {
  return fields(message, number).find((value) => typeof value === "number") ?? 0;
}
