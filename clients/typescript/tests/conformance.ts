/**
 * Runs the commands of the tests in tests/clients/polyglot: one JSON object a line, with lines of JSON in answer, the last
 * of them with "done" or "error".
 */
import { createInterface } from "node:readline";

import {
  costOf,
  Godoty,
  GodotyError,
  OnDisconnect,
  stopReasonToJSON,
  type Totals,
  type TurnEvent,
  TurnLimits,
  UsageGroup,
} from "@godoty/client";

import { actionsOf, type AnswerCommand, answerTo, optionsOf, print, type ToolCommand } from "./conformance_tools.js";

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
  agent?: string;
  tools?: ToolCommand[];
  approval?: AnswerCommand; // to each approval; unset: there is no function
  answers?: AnswerCommand[]; // in place of a text
  cursor?: string;
  stop_after?: number; // entries
  path?: string; // of a file
  data?: string; // in base64
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
      case "export":
        return await exported(godoty, given);
      case "upload":
        return await upload(godoty, given);
      default:
        throw new Error(`unknown command ${given.do}`);
    }
  } finally {
    godoty.close();
  }
}

async function converse(godoty: Godoty, given: Command): Promise<object> {
  const limits = given.max_cost_usd ? TurnLimits.create({ maxCostUsd: given.max_cost_usd }) : undefined;
  const options = {
    ...optionsOf(given.tools, given.approval),
    ...(given.timeout_ms ? { timeoutMs: given.timeout_ms } : {}),
  };
  const turn = godoty.converse(
    {
      sessionId: given.session_id,
      text: given.text ?? "",
      agent: given.agent,
      actionResults: (given.answers ?? []).flatMap((each) => answerTo(each, { actionId: each.action_id ?? "" }) ?? []),
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
    actions: actionsOf(turn),
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

async function exported(godoty: Godoty, given: Command): Promise<object> {
  const found = godoty.exportLedger({ cursor: given.cursor });
  const entries: string[] = [];
  for await (const { entry } of found) {
    if (entry?.$case === "call") entries.push(entry.value.callId);
    if (entries.length === given.stop_after) break;
  }
  return { entries, cursor: found.cursor, as_of: found.asOf?.getTime() };
}

async function upload(godoty: Godoty, given: Command): Promise<object> {
  const stored = await godoty.uploadAttachment(given.path ?? Buffer.from(given.data ?? "", "base64"));
  return { attachment_id: stored.attachmentId, media_type: stored.mediaType, size_bytes: Number(stored.sizeBytes) };
}

function totalsOf(totals: Totals | undefined): object {
  return {
    cost_usd: costOf(totals) ?? null,
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

for await (const line of createInterface({ input: process.stdin })) {
  await run(JSON.parse(line) as Command).then(
    (done) => print({ done }),
    (error: unknown) => print({ error: described(error) }),
  );
}
