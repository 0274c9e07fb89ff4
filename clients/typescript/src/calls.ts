/** The methods of a service as functions of promises and async iterables. */
import { type CallOptions as GrpcOptions, type Client, Metadata } from "@grpc/grpc-js";

import { decode } from "./errors.js";

/** A method, as ts-proto describes it. */
interface Method {
  path: string;
  requestStream: boolean;
  responseStream: boolean;
  requestSerialize(value: any): Buffer;
  requestDeserialize(bytes: Buffer): any;
  responseDeserialize(bytes: Buffer): any;
}

type Request<M> = M extends { requestDeserialize(bytes: Buffer): infer Q } ? Partial<Q> : never;
type Response<M> = M extends { responseDeserialize(bytes: Buffer): infer R } ? R : never;

export interface CallOptions {
  /** The deadline in milliseconds. By default that of the client, and none for streams of responses. */
  timeoutMs?: number;
  /** Cancels the call. */
  signal?: AbortSignal;
  /** Wait for a connection, until the deadline, if there is none. By default the call then fails. */
  waitForReady?: boolean;
}

/** The methods of a service. Fields that a request leaves out have their defaults. Calls fail with `GodotyError`. */
export type Calls<Service> = {
  readonly [Name in keyof Service]: Service[Name] extends { requestStream: true }
    ? (pieces: AsyncIterable<Request<Service[Name]>>, options?: CallOptions) => Promise<Response<Service[Name]>>
    : Service[Name] extends { responseStream: true }
      ? (request: Request<Service[Name]>, options?: CallOptions) => AsyncGenerator<Response<Service[Name]>, void>
      : (request: Request<Service[Name]>, options?: CallOptions) => Promise<Response<Service[Name]>>;
};

/** Returns the methods of a service; `timeoutMs` is the default deadline of those that return one response. */
export function callsOf<Service extends object>(service: Service, client: Client, timeoutMs: number): Calls<Service> {
  const calls: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(service) as [string, Method][]) {
    if (method.requestStream) calls[name] = upload(client, method, timeoutMs);
    else if (method.responseStream) calls[name] = stream(client, method);
    else calls[name] = unary(client, method, timeoutMs);
  }
  return calls as Calls<Service>;
}

function unary(client: Client, method: Method, timeoutMs: number) {
  return (request: object, options: CallOptions = {}) =>
    new Promise((resolve, reject) => {
      const [metadata, limits] = grpcOptions({ timeoutMs, ...options });
      const call = client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        complete(method, request),
        metadata,
        limits,
        (error, response) => {
          ended();
          if (error) reject(decode(error));
          else resolve(response);
        },
      );
      const ended = onAbort(options.signal, () => call.cancel());
    });
}

function stream(client: Client, method: Method) {
  return async function* (request: object, options: CallOptions = {}): AsyncGenerator<unknown, void> {
    const [metadata, limits] = grpcOptions(options);
    const call = client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      complete(method, request),
      metadata,
      limits,
    );
    call.on("error", () => {}); // also after the reader has left
    const ended = onAbort(options.signal, () => call.cancel());
    try {
      for await (const response of call) yield response;
    } catch (error) {
      throw decode(error);
    } finally {
      ended();
      call.cancel();
    }
  };
}

function upload(client: Client, method: Method, timeoutMs: number) {
  return async (pieces: AsyncIterable<object>, options: CallOptions = {}): Promise<unknown> => {
    const [metadata, limits] = grpcOptions({ timeoutMs, ...options });
    let failed = false;
    const { call, answer } = start();
    const ended = onAbort(options.signal, () => call.cancel());
    answer.catch(() => (failed = true));
    try {
      for await (const piece of pieces) {
        if (failed) break;
        if (!call.write(complete(method, piece))) await Promise.race([drained(), answer]);
      }
      call.end();
      return await answer;
    } finally {
      ended();
      call.cancel();
    }

    function drained(): Promise<void> {
      return new Promise((resolve) => call.once("drain", resolve));
    }

    function start() {
      let settle: (error: Error | null, response?: unknown) => void = () => {};
      const answer = new Promise<unknown>((resolve, reject) => {
        settle = (error, response) => (error ? reject(decode(error)) : resolve(response));
      });
      const call = client.makeClientStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        metadata,
        limits,
        (error, response) => settle(error, response),
      );
      return { call, answer };
    }
  };
}

function grpcOptions({ timeoutMs, waitForReady }: CallOptions): [Metadata, GrpcOptions] {
  const metadata = new Metadata(waitForReady === undefined ? {} : { waitForReady });
  return [metadata, timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs }];
}

/** Returns the request with the defaults of the fields that it leaves out. */
function complete(method: Method, request: object): object {
  const given = Object.entries(request).filter(([, value]) => value !== undefined);
  return { ...method.requestDeserialize(Buffer.alloc(0)), ...Object.fromEntries(given) };
}

/** Calls a function when the signal aborts; returns a function that ends this. */
export function onAbort(signal: AbortSignal | undefined, abort: () => void): () => void {
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  return () => signal?.removeEventListener("abort", abort);
}
