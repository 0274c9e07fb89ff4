/** Prints the size of each message of a session. It reads whole the messages that a list shows cut. */
import {
  type AgentServiceClient,
  type ContentBlock,
  ListMessagesRequest,
  type ListMessagesResponse,
  type Message,
  ReadMessageRequest,
  type ReadMessageResponse,
  roleToJSON,
} from "../src/index.js";
import { DEADLINE_MS, start } from "./start.js";

async function history(agent: AgentServiceClient): Promise<void> {
  const sessionId = process.env["GODOTY_SESSION"];
  if (!sessionId) throw new Error("set GODOTY_SESSION");
  let count = 0;
  let pageToken = "";
  do {
    const page = await listMessages(agent, sessionId, pageToken);
    for (const message of page.messages) {
      show(message, await contentOf(agent, sessionId, message));
      count++;
    }
    pageToken = page.nextPageToken;
  } while (pageToken);
  console.log(`messages: ${count}`);
}

function listMessages(agent: AgentServiceClient, sessionId: string, pageToken: string): Promise<ListMessagesResponse> {
  const request = ListMessagesRequest.create({ sessionId, pageToken });
  return new Promise((resolve, reject) => {
    agent.listMessages(request, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

/**
 * Returns the content of a listed message. If a block of it is cut, the content comes from ReadMessage, where a block
 * may be in several pieces.
 */
async function contentOf(agent: AgentServiceClient, sessionId: string, message: Message): Promise<ContentBlock[]> {
  if (!message.content.some((block) => block.truncated)) return message.content;
  const request = ReadMessageRequest.create({ sessionId, number: message.number });
  const stream = agent.readMessage(request, { deadline: Date.now() + DEADLINE_MS });
  const pieces: ContentBlock[] = [];
  for await (const { content } of stream as AsyncIterable<ReadMessageResponse>) {
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
