/** Answers to actions, as the server takes them. */
import type { Action, ActionResult, ClientToolOutput } from "./gen/godoty/v1/action.js";

const MAXIMUM_TEXT = 64 * 1024; // bytes of an output
const MAXIMUM_JSON = 32 * 1024; // bytes of an output
const MAXIMUM_WORDS = 1000; // characters of a reason or an error
const CUT = " […]";
const UNPRINTABLE = /[^\p{L}\p{M}\p{N}\p{P}\p{S}]+/gu;

/** What an action is known by. */
export type ActionId = Pick<Action, "actionId">;

/** Lets a call run; with another input, if one is given: the model then sees that it was changed. */
export function approve({ actionId }: ActionId, input?: object): ActionResult {
  const inputJson = input === undefined ? "" : JSON.stringify(input);
  return { actionId, result: { $case: "approve", value: { inputJson } } };
}

/** Answers a call with a denial, and the reason that the model sees. */
export function deny({ actionId }: ActionId, why = ""): ActionResult {
  return { actionId, result: { $case: "deny", value: { why: words(why) } } };
}

/** Answers a call of a tool of this program, with what `Tool.run` may return, or with an `Error`. */
export function toolOutput({ actionId }: ActionId, value: unknown): ActionResult {
  return { actionId, result: { $case: "output", value: outputOf(value) } };
}

function outputOf(value: unknown): ClientToolOutput {
  if (value === undefined || value === null) return textOutput("");
  if (typeof value === "string") return textOutput(value);
  if (value instanceof Error) return errorOutput(value.message);
  if (isOutput(value)) return value;
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text === undefined) return errorOutput("The tool's result is no JSON.");
    if (Buffer.byteLength(text) > MAXIMUM_JSON) return textOutput(text);
    return { output: { $case: "outputJson", value: text } };
  } catch (error) {
    return errorOutput(error instanceof Error ? error.message : "");
  }
}

function isOutput(value: unknown): value is ClientToolOutput {
  const { output } = value as Partial<ClientToolOutput>;
  return output !== undefined && ["outputText", "outputJson", "attachmentId", "error"].includes(output?.$case);
}

function errorOutput(text: string): ClientToolOutput {
  return { output: { $case: "error", value: words(text) || "The tool failed." } };
}

function textOutput(text: string): ClientToolOutput {
  return { output: { $case: "outputText", value: Buffer.byteLength(text) > MAXIMUM_TEXT ? cut(text) : text } };
}

/** Returns the beginning of a text: whole characters of UTF-8. */
function cut(text: string): string {
  const bytes = Buffer.from(text);
  let end = MAXIMUM_TEXT - Buffer.byteLength(CUT);
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.toString("utf8", 0, end) + CUT;
}

/** Returns a text that can be printed, in one line. */
function words(text: string): string {
  const found = [...text.replace(UNPRINTABLE, " ").trim()];
  return found.length > MAXIMUM_WORDS ? found.slice(0, MAXIMUM_WORDS - CUT.length).join("") + CUT : found.join("");
}
