/**
 * Runs the commands of the tests in tests/clients/polyglot: one JSON object a line, with lines of JSON in answer, the last
 * of them with "done" or "error".
 */
import { createInterface } from "node:readline";

import {
  Godoty,
  GodotyError,
  OnDisconnect,
  stopReasonToJSON,
  type Totals,
  type TurnEvent,
  TurnLimits,
  UsageGroup,
} from "@godoty/client";

interface Command {
  do: string;
  target?: string;
  api_key?: string;
  session_id?: string;
  text?: string;
  max_cost_usd?: string;
  leave_at?: string; // leave once the text contains it
  timeout_ms?: number; // of the turn
  grace_ms?: number;
  continue?: boolean; // ON_DISCONNECT_CONTINUE
}

async function run(given: Command): Promise<object> {
  const godoty = new Godoty({
    ...(given.target ? { target: given.target } : {}),
    ...(given.api_key ? { apiKey: given.api_key } : {}),
    ...(given.grace_ms ? { disconnectGraceMs: given.grace_ms } : {}),
  });
  try {
    switch (given.do) {
      case "converse":
        return await converse(godoty, given);
      case "metrics":
        return totalsOf((await godoty.sessionMetrics(given.session_id ?? "")).totals);
      case "usage":
        return await usage(godoty);
      default:
        throw new Error(`unknown command ${given.do}`);
    }
  } finally {
    godoty.close();
  }
}

async function converse(godoty: Godoty, given: Command): Promise<object> {
  const limits = given.max_cost_usd ? TurnLimits.create({ maxCostUsd: given.max_cost_usd }) : undefined;
  const options = given.timeout_ms ? { timeoutMs: given.timeout_ms } : {};
  const turn = godoty.converse(
    {
      sessionId: given.session_id,
      text: given.text ?? "",
      limits,
      ...(given.continue ? { onDisconnect: OnDisconnect.ON_DISCONNECT_CONTINUE } : {}),
    },
    options,
  );
  for await (const event of turn) {
    show(event);
    if (given.leave_at && turn.text.includes(given.leave_at)) break;
  }
  return {
    turn_id: turn.id,
    session_id: turn.sessionId,
    request_id: turn.requestId,
    text: turn.text,
    reconnects: turn.reconnects,
    stop_reason: turn.finished ? stopReasonToJSON(turn.finished.stopReason) : null,
    cost_usd: turn.costUsd ?? null,
    ...(turn.finished ? { totals: totalsOf(turn.finished.turnTotals) } : {}),
  };
}

function show({ sequence, event }: TurnEvent): void {
  if (!event || event.$case === "heartbeat") return;
  const name = event.$case.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const line: Record<string, unknown> = { sequence: Number(sequence), event: name };
  if (event.$case === "textDelta") line["text"] = event.value.text;
  if (event.$case === "toolCallStarted") line["name"] = event.value.name;
  if (event.$case === "modelCallFinished") line["cost_usd"] = event.value.call?.costUsd;
  print(line);
}

async function usage(godoty: Godoty): Promise<object> {
  const hour = 3_600_000;
  const range = { startTime: new Date(Date.now() - 24 * hour), endTime: new Date(Date.now() + hour) };
  const rows: object[] = [];
  for await (const { keys, totals } of godoty.usage({ ...range, groupBy: [UsageGroup.USAGE_GROUP_MODEL] })) {
    rows.push({ model: keys[0]?.key?.value, totals: totalsOf(totals) });
  }
  return { rows };
}

function totalsOf(totals: Totals | undefined): object {
  return {
    cost_usd: totals?.costUsd ?? null,
    turns: Number(totals?.turns),
    model_calls: Number(totals?.modelCalls),
    input_tokens: Number(totals?.usage?.inputTokens ?? 0),
    output_tokens: Number(totals?.usage?.outputTokens ?? 0),
  };
}

function described(error: unknown): object {
  if (!(error instanceof GodotyError)) return { text: String(error) };
  const { message: text, code, reason, quotas, metadata, requestId: request_id } = error;
  return { text, code, reason, quotas, metadata, request_id, retry_delay: (error.retryDelayMs ?? 0) / 1000 };
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

for await (const line of createInterface({ input: process.stdin })) {
  await run(JSON.parse(line) as Command).then(
    (done) => print({ done }),
    (error: unknown) => print({ error: described(error) }),
  );
}
