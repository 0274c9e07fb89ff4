/** What the examples share: the connection they use, and how they report a failure. */
import { type AgentServiceClient, connect } from "../src/index.js";

export const DEADLINE_MS = 120_000;

/** Runs the example called `name` against the server at GODOTY_LISTEN. If it fails, the process exits with code 1. */
export function start(name: string, example: (agent: AgentServiceClient) => Promise<void>): void {
  connected(process.env["GODOTY_LISTEN"], process.env["GODOTY_API_KEY"], example).catch((error: unknown) => {
    console.error(`${name}:`, error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}

async function connected(
  target: string | undefined,
  apiKey: string | undefined,
  example: (agent: AgentServiceClient) => Promise<void>,
): Promise<void> {
  if (!target || !apiKey) throw new Error("set GODOTY_LISTEN and GODOTY_API_KEY");
  const agent = connect(target, apiKey);
  try {
    await example(agent);
  } finally {
    agent.close();
  }
}
