/** Holds a conversation of two turns and compares what it cost with the session's metrics. */
import type { Godoty, Turn } from "@godoty/client";

import { start } from "./start.js";

async function converse(godoty: Godoty): Promise<void> {
  const { sessionId } = await say(godoty, "", "Hello from TypeScript.");
  const { finished } = await say(godoty, sessionId, "And once more.");
  const { totals } = await godoty.sessionMetrics(sessionId);
  console.log(`metrics: cost_usd=${totals?.costUsd} turns=${totals?.turns}`);
  const costUsd = finished?.sessionTotals?.costUsd;
  if (totals?.costUsd !== costUsd) throw new Error(`the metrics say ${totals?.costUsd} USD, the last turn said ${costUsd}`);
}

/** Runs one turn; it prints the answer and the session's totals after the turn. */
async function say(godoty: Godoty, sessionId: string, text: string): Promise<Turn> {
  const turn = godoty.converse({ sessionId, text }, { timeoutMs: 120_000 });
  for await (const delta of turn.deltas()) process.stdout.write(delta);
  const totals = turn.finished?.sessionTotals;
  console.log(`\nsession_totals: cost_usd=${totals?.costUsd} turns=${totals?.turns}`);
  return turn;
}

start("converse", converse);
