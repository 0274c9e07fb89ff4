/** Prints the size of each message of a session. It reads whole the messages that a list shows cut. */
import { type ContentBlock, type Godoty, type Message, roleToJSON } from "@godoty/client";

import { start } from "./start.js";

async function history(godoty: Godoty): Promise<void> {
  const sessionId = process.env["GODOTY_SESSION"];
  if (!sessionId) throw new Error("set GODOTY_SESSION");
  let count = 0;
  for await (const message of godoty.messages(sessionId)) {
    show(message, await contentOf(godoty, sessionId, message));
    count++;
  }
  console.log(`messages: ${count}`);
}

/**
 * Returns the content of a listed message. If a block of it is cut, the content comes from ReadMessage, where a block
 * may be in several pieces.
 */
async function contentOf(godoty: Godoty, sessionId: string, message: Message): Promise<ContentBlock[]> {
  if (!message.content.some((block) => block.truncated)) return message.content;
  const pieces: ContentBlock[] = [];
  for await (const { content } of godoty.agents.readMessage({ sessionId, number: message.number })) {
    if (content) pieces.push(content);
  }
  return pieces;
}

function show(message: Message, content: ContentBlock[]): void {
  const role = roleToJSON(message.role).replace("ROLE_", "").toLowerCase();
  const bytes = content.reduce((sum, block) => sum + Buffer.byteLength(textOf(block)), 0);
  console.log(`message: number=${message.number} role=${role} bytes=${bytes}`);
}

function textOf({ block }: ContentBlock): string {
  switch (block?.$case) {
    case "text":
    case "reasoning":
      return block.value;
    case "toolUse":
      return block.value.inputJson;
    case "toolResult":
      return block.value.output;
    default:
      return "";
  }
}

start("history", history);
