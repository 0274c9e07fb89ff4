/** The tools and approvals of the conformance program, which always do the same. */
import { setTimeout as sleep } from "node:timers/promises";

import {
  type Action,
  type ActionResult,
  actionKindToJSON,
  approve,
  type ConverseOptions,
  deny,
  type Tool,
  toolOutput,
  type Turn,
} from "@godoty/client";

export interface ToolCommand {
  name: string;
  description?: string;
  input_schema?: string;
  returns?: unknown;
  fails?: string; // with this text
  sleep_ms?: number; // before it ends
}

/** The answer to an action: one of its members. */
export interface AnswerCommand {
  action_id?: string;
  approve?: boolean;
  input?: string; // the approved one, as JSON
  deny?: string;
  output?: unknown;
  fail?: string; // of the approval's function
}

export function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

export function answerTo(given: AnswerCommand, action: Pick<Action, "actionId">): ActionResult | undefined {
  if (given.approve) return approve(action);
  if (given.input) return approve(action, JSON.parse(given.input));
  if (given.deny) return deny(action, given.deny);
  return given.output === undefined ? undefined : toolOutput(action, given.output);
}

export function optionsOf(tools: ToolCommand[] | undefined, approval: AnswerCommand | undefined): ConverseOptions {
  return { tools: (tools ?? []).map(toolOf), ...(approval ? { approve: asks(approval) } : {}) };
}

function toolOf({ name, description = "", input_schema, returns, fails, sleep_ms }: ToolCommand): Tool {
  return {
    name,
    description,
    ...(input_schema ? { inputSchema: JSON.parse(input_schema) } : {}),
    async run(input, { signal }) {
      print({ event: "tool_ran", name, input });
      if (sleep_ms) await sleep(sleep_ms, undefined, { signal });
      if (fails) throw new Error(fails);
      return returns;
    },
  };
}

function asks(given: AnswerCommand) {
  return (action: Action) => {
    const { name, reason, inputJson } = action;
    print({ event: "approval_asked", name, reason, input: JSON.parse(inputJson) });
    if (given.fail) throw new Error(given.fail);
    return given.approve || answerTo(given, action); // true is an answer, too
  };
}

export function actionsOf(turn: Turn): object[] {
  return turn.actions.map(({ actionId: action_id, kind, name, inputJson: input_json }) => {
    return { action_id, kind: actionKindToJSON(kind), name, input_json };
  });
}
