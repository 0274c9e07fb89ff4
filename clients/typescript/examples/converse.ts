/** Holds a conversation of two turns and compares what it cost with the session's metrics. */
import {
  type AgentServiceClient,
  ConverseRequest,
  type ConverseResponse,
  GetSessionMetricsRequest,
  type GetSessionMetricsResponse,
  type Totals,
} from "../src/index.js";
import { DEADLINE_MS, start } from "./start.js";

async function converse(agent: AgentServiceClient): Promise<void> {
  const first = await say(agent, "", "Hello from TypeScript.");
  const second = await say(agent, first.sessionId, "And once more.");
  const { totals } = await sessionMetrics(agent, first.sessionId);
  console.log(`metrics: cost_usd=${totals?.costUsd} turns=${totals?.turns}`);
  if (totals?.costUsd !== second.totals.costUsd) {
    throw new Error(`the metrics say ${totals?.costUsd} USD, the last turn said ${second.totals.costUsd}`);
  }
}

/** Runs one turn, prints the answer, the session's id and its totals after the turn. */
async function say(agent: AgentServiceClient, sessionId: string, text: string): Promise<{ sessionId: string; totals: Totals }> {
  const stream = agent.converse(ConverseRequest.create({ sessionId, text }), { deadline: Date.now() + DEADLINE_MS });
  let totals: Totals | undefined;
  for await (const { event } of stream as AsyncIterable<ConverseResponse>) {
    if (event?.$case === "turnStarted") sessionId = event.value.sessionId;
    if (event?.$case === "textDelta") process.stdout.write(event.value.text);
    if (event?.$case === "turnFinished") totals = event.value.sessionTotals;
  }
  if (!totals) throw new Error("the stream ended before its turn");
  console.log(`\nsession_totals: cost_usd=${totals.costUsd} turns=${totals.turns}`);
  return { sessionId, totals };
}

function sessionMetrics(agent: AgentServiceClient, sessionId: string): Promise<GetSessionMetricsResponse> {
  const request = GetSessionMetricsRequest.create({ sessionId });
  return new Promise((resolve, reject) => {
    agent.getSessionMetrics(request, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

start("converse", converse);
