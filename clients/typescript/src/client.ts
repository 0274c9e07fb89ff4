/** The client: its connection, the services, and what is read in pages. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";

import { ChannelCredentials, type ChannelOptions, Client, InterceptingCall, type Interceptor } from "@grpc/grpc-js";

import { upload } from "./attachments.js";
import { type CallOptions, type Calls, callsOf } from "./calls.js";
import { AdminServiceService } from "./gen/godoty/v1/admin_service.js";
import { AgentDefinitionServiceService } from "./gen/godoty/v1/agent_definition_service.js";
import { AgentServiceService, type GetSessionMetricsResponse } from "./gen/godoty/v1/agent_service.js";
import type { Attachment } from "./gen/godoty/v1/attachment.js";
import {
  BillingServiceService,
  type ExportLedgerRequest,
  type GetUsageRequest,
  type UsageRow,
} from "./gen/godoty/v1/billing_service.js";
import type { LedgerEntry } from "./gen/godoty/v1/ledger.js";
import type { Message, Session } from "./gen/godoty/v1/session.js";
import { LedgerExport } from "./ledger.js";
import { type ConverseOptions, Turn, type TurnRequest } from "./turn.js";

const TIMEOUT_MS = 30_000;
const GRACE_MS = 30_000;
const MAXIMUM_GRACE_MS = 600_000;

export interface GodotyOptions {
  /** The server, "host:port". By default GODOTY_LISTEN. */
  target?: string;
  /** The API key. By default GODOTY_API_KEY. */
  apiKey?: string;
  /**
   * Whether to connect by TLS, or the credentials to do so. By default TLS is used to all other machines, and to this one
   * if GODOTY_TLS_CA names a PEM file of authorities, which are then the trusted ones.
   */
  tls?: boolean | ChannelCredentials;
  /** The deadline of calls that return one response, in milliseconds: 30,000 by default. */
  timeoutMs?: number;
  /**
   * How long a turn runs on while the connection is lost, and how long the client tries to resume it, in milliseconds:
   * at most 600,000, by default 30,000.
   */
  disconnectGraceMs?: number;
  /** Options of gRPC. */
  channelOptions?: ChannelOptions;
}

/** A connection to Godoty, which opens with the first call. Close it, so that the process can end. */
export class Godoty {
  /** Runs turns, and has sessions and their cost. A turn is best run by `converse`. */
  readonly agents: Calls<typeof AgentServiceService>;
  /** The tenant's agents and MCP servers, with a key of the scope agents. */
  readonly definitions: Calls<typeof AgentDefinitionServiceService>;
  /** The tenant's usage, with a key of the scope billing. */
  readonly billing: Calls<typeof BillingServiceService>;
  /** Tenants and keys, with a key of the scope admin. */
  readonly admin: Calls<typeof AdminServiceService>;

  readonly #client: Client;
  readonly #graceMs: number;

  constructor(options: GodotyOptions = {}) {
    const target = options.target ?? process.env["GODOTY_LISTEN"];
    const apiKey = options.apiKey ?? process.env["GODOTY_API_KEY"] ?? "";
    const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#graceMs = options.disconnectGraceMs ?? GRACE_MS;
    if (!target) throw new Error("no server: set GODOTY_LISTEN, or the option target");
    // grpc-js refuses such a key too, but with the key in its text.
    if (!/^[!-~]+$/.test(apiKey)) throw new Error("the API key is empty or has characters that no key has: set GODOTY_API_KEY, or the option apiKey");
    if (!(timeoutMs > 0)) throw new Error("timeoutMs must be positive");
    if (!(this.#graceMs >= 0 && this.#graceMs <= MAXIMUM_GRACE_MS)) throw new Error("disconnectGraceMs must be from 0 to 600000");
    const credentials = credentialsOf(target, options.tls);
    this.#client = new Client(target, credentials, {
      "grpc.service_config": readFileSync(new URL("../service_config.json", import.meta.url), "utf8"),
      "grpc.keepalive_time_ms": 20_000, // servers allow a ping every 10 seconds
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.initial_reconnect_backoff_ms": 100, // turns have a backoff of their own
      "grpc.max_reconnect_backoff_ms": 2_000,
      ...(isLoopback(target) ? { "grpc.enable_http_proxy": 0 } : {}),
      ...options.channelOptions,
      interceptors: [bearer(apiKey)],
    });
    this.agents = callsOf(AgentServiceService, this.#client, timeoutMs);
    this.definitions = callsOf(AgentDefinitionServiceService, this.#client, timeoutMs);
    this.billing = callsOf(BillingServiceService, this.#client, timeoutMs);
    this.admin = callsOf(AdminServiceService, this.#client, timeoutMs);
  }

  /**
   * Returns a turn, which begins when its events are read. A request without an id gets a random one, so that a retry
   * never charges twice, and one without a disconnect grace the client's.
   */
  converse(request: TurnRequest, options: ConverseOptions = {}): Turn {
    return new Turn(this.agents, request, this.#graceMs, options);
  }

  /** Returns the cost and usage of a session. */
  sessionMetrics(sessionId: string): Promise<GetSessionMetricsResponse> {
    return this.agents.getSessionMetrics({ sessionId });
  }

  /** Yields the usage of a time range by groups; without groups, one row. It needs a key of the scope billing. */
  usage(request: Partial<GetUsageRequest> & { startTime: Date; endTime: Date }): AsyncGenerator<UsageRow, void> {
    return pages(async (pageToken) => {
      const page = await this.billing.getUsage({ ...request, pageToken });
      return [page.rows, page.nextPageToken];
    });
  }

  /** Yields the ledger's entries of a time range, oldest first. It needs a key of the scope billing. */
  ledgerEntries(range: { startTime?: Date; endTime?: Date } = {}): AsyncGenerator<LedgerEntry, void> {
    return pages(async (pageToken) => {
      const page = await this.billing.listLedgerEntries({ ...range, pageToken });
      return [page.entries, page.nextPageToken];
    });
  }

  /**
   * Returns an export of all ledger entries of a time range, oldest first; with a `cursor`, it goes on there. It needs a key
   * of the scope billing.
   */
  exportLedger(request: Partial<ExportLedgerRequest> = {}, { signal }: { signal?: AbortSignal } = {}): LedgerExport {
    return new LedgerExport(this.billing, request, this.#graceMs, signal ?? new AbortController().signal);
  }

  /**
   * Stores an image or a PDF document for messages, from its bytes or its file; it is deleted after a day unless a session
   * names it.
   */
  uploadAttachment(source: Uint8Array | string | URL, options: CallOptions = {}): Promise<Attachment> {
    return upload(this.agents, source, options);
  }

  /** Yields the tenant's sessions, most recently used first. */
  sessions(): AsyncGenerator<Session, void> {
    return pages(async (pageToken) => {
      const page = await this.agents.listSessions({ pageToken });
      return [page.sessions, page.nextPageToken];
    });
  }

  /** Yields the messages of a session, oldest first. A list shows large ones cut: `readMessage` has all of them. */
  messages(sessionId: string): AsyncGenerator<Message, void> {
    return pages(async (pageToken) => {
      const page = await this.agents.listMessages({ sessionId, pageToken });
      return [page.messages, page.nextPageToken];
    });
  }

  /** Closes the connection. */
  close(): void {
    this.#client.close();
  }
}

async function* pages<Item>(fetch: (pageToken: string) => Promise<[Item[], string]>): AsyncGenerator<Item, void> {
  let pageToken = "";
  do {
    const [items, next] = await fetch(pageToken);
    yield* items;
    pageToken = next;
  } while (pageToken);
}

function credentialsOf(target: string, tls: boolean | ChannelCredentials | undefined): ChannelCredentials {
  if (tls instanceof ChannelCredentials) return tls;
  const authorities = process.env["GODOTY_TLS_CA"];
  if (tls ?? (authorities || !isLoopback(target))) {
    return ChannelCredentials.createSsl(authorities ? readFileSync(authorities) : null);
  }
  return ChannelCredentials.createInsecure();
}

/** Whether a "host:port" names this machine. */
export function isLoopback(target: string): boolean {
  if (target.startsWith("unix:")) return true;
  const host = target.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

function bearer(apiKey: string): Interceptor {
  return (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        metadata.set("authorization", `Bearer ${apiKey}`);
        next(metadata, listener);
      },
    });
}
