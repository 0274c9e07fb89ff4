/** What answers the actions of a turn: tools, which this program runs, and approvals. */
import { approve, deny, toolOutput } from "./action_results.js";
import { onAbort } from "./calls.js";
import { type Action, ActionDecider, ActionKind, ActionResult, ClientTool } from "./gen/godoty/v1/action.js";

const MAXIMUM_ANSWERS = 16; // of one request
const MAXIMUM_BYTES = 120 * 1024; // of one request's answers; the server takes 128 KiB

/** A tool that this program runs for the model. */
export interface Tool<Input = any> {
  /** What the model calls it: 1 to 64 of `[A-Za-z0-9_-]`, the first a letter. */
  name: string;
  /** What the tool does, for the model: at most 1,000 printable characters. Without it, the agent's definition declares the tool. */
  description?: string;
  /** The JSON Schema of its input, an object. By default that of an object without members. */
  inputSchema?: object;
  /**
   * Runs the tool. Its input is an object as the model wrote it: it may not be valid by the schema. The model sees a string
   * as text, a `ClientToolOutput` as it is, any other value as JSON, and an error that is thrown by its message, in at
   * most 64 KiB.
   */
  run(input: Input, call: ToolCall): unknown;
}

/** A call of a tool. */
export interface ToolCall {
  /** The action that the call is. */
  action: Action;
  /** Aborts once the turn is left. */
  signal: AbortSignal;
}

/** An answer to a call that needs approval: true lets it run, false denies it, undefined leaves it open; or `approve` and `deny`. */
export type Approval = boolean | ActionResult | undefined;

/** Answers a call that needs approval. */
export type Approve = (action: Action, signal: AbortSignal) => Approval | Promise<Approval>;

/** The answers to the actions of a turn. */
export class Answers {
  readonly #tools: readonly Tool[];
  readonly #approve: Approve | undefined;
  readonly #signal: AbortSignal;
  readonly #given = new Map<string, ActionResult | undefined>(); // undefined: left open, or sent

  constructor(tools: readonly Tool[], approve: Approve | undefined, signal: AbortSignal) {
    this.#tools = tools;
    this.#approve = approve;
    this.#signal = signal;
  }

  /** The tools that a request declares. */
  get declarations(): ClientTool[] {
    return this.#tools.flatMap(({ name, description, inputSchema }) =>
      description
        ? [ClientTool.fromPartial({ toolName: name, description, inputSchema: inputSchema && JSON.stringify(inputSchema) })]
        : [],
    );
  }

  /** Returns the answers to actions, as many as one request takes: the others are asked again. */
  async to(actions: readonly Action[]): Promise<ActionResult[]> {
    for (const kind of [ActionKind.ACTION_KIND_APPROVAL, ActionKind.ACTION_KIND_CLIENT_TOOL]) {
      for (const action of actions) {
        if (action.kind !== kind || this.#given.has(action.actionId)) continue;
        this.#given.set(action.actionId, await this.#answer(action));
      }
    }
    const found: ActionResult[] = [];
    let size = 0;
    for (const { actionId } of actions) {
      const answer = this.#given.get(actionId);
      if (!answer) continue;
      size += ActionResult.encode(answer).finish().length;
      if (found.length === MAXIMUM_ANSWERS || (found.length && size > MAXIMUM_BYTES)) break;
      found.push(answer);
      this.#given.set(actionId, undefined);
    }
    return found;
  }

  /** Returns the answer to an action; undefined: it is left open. */
  async #answer(action: Action): Promise<ActionResult | undefined> {
    if (action.decider === ActionDecider.ACTION_DECIDER_REVIEWER) return undefined;
    if (action.kind === ActionKind.ACTION_KIND_APPROVAL) {
      const answer = await this.#unlessLeft(() => this.#approve?.(action, this.#signal));
      return typeof answer === "boolean" ? (answer ? approve(action) : deny(action)) : answer;
    }
    return this.#tools.length ? toolOutput(action, await this.#unlessLeft(() => this.#run(action))) : undefined;
  }

  async #run(action: Action): Promise<unknown> {
    const tool = this.#tools.find(({ name }) => name === action.name);
    if (!tool) return new Error(`there is no tool ${JSON.stringify(action.name)} here`);
    try {
      return await tool.run(JSON.parse(action.inputJson), { action, signal: this.#signal });
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  /** Calls a function; rejects once the turn is left, also if the function goes on. */
  #unlessLeft<Result>(call: () => Result | Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const ended = onAbort(this.#signal, () => reject(this.#signal.reason));
      if (this.#signal.aborted) return;
      Promise.resolve().then(call).then(resolve, reject).finally(ended);
    });
  }
}
