/** Godoty's stubs, and `connect`, which opens a client that sends an API key with each call. */
import { isIP } from "node:net";

import { type ChannelOptions, credentials, InterceptingCall, type Interceptor } from "@grpc/grpc-js";

import { AgentServiceClient } from "./gen/godoty/v1/agent_service.js";

export * from "./gen/godoty/v1/agent_service.js";
export * from "./gen/godoty/v1/budget.js";
export * from "./gen/godoty/v1/metering.js";
export * from "./gen/godoty/v1/model.js";
export * from "./gen/godoty/v1/session.js";
export * from "./gen/godoty/v1/turn.js";
export { ErrorReason } from "./gen/godoty/v1/errors.js";

/** Opens a client of `target` ("host:port"): plain text to this machine, TLS to any other. */
export function connect(target: string, apiKey: string, options: ChannelOptions = {}): AgentServiceClient {
  // grpc-js refuses such a key too, but with the key in its text.
  if (!/^[!-~]+$/.test(apiKey)) throw new Error("the API key is empty or has characters that no key has");
  const loopback = isLoopback(target);
  return new AgentServiceClient(target, loopback ? credentials.createInsecure() : credentials.createSsl(), {
    ...(loopback ? { "grpc.enable_http_proxy": 0 } : {}),
    ...options,
    interceptors: [bearer(apiKey)],
  });
}

/** Whether a "host:port" names this machine. */
export function isLoopback(target: string): boolean {
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
