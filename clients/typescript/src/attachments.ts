/** The upload of attachments. */
import { createReadStream } from "node:fs";

import type { CallOptions, Calls } from "./calls.js";
import type { AgentServiceService, UploadAttachmentRequest } from "./gen/godoty/v1/agent_service.js";
import type { Attachment } from "./gen/godoty/v1/attachment.js";

const PIECE = 256 * 1024; // bytes of one message
const TIMEOUT_MS = 120_000; // that of the server

/** Stores an image or a PDF document, from its bytes or its file. */
export async function upload(
  agents: Calls<typeof AgentServiceService>,
  source: Uint8Array | string | URL,
  options: CallOptions,
): Promise<Attachment> {
  const { attachment } = await agents.uploadAttachment(piecesOf(source), { timeoutMs: TIMEOUT_MS, ...options });
  if (!attachment) throw new Error("the server has returned no attachment");
  return attachment;
}

async function* piecesOf(source: Uint8Array | string | URL): AsyncGenerator<Partial<UploadAttachmentRequest>, void> {
  if (source instanceof Uint8Array) {
    for (let start = 0; start < source.length; start += PIECE) {
      yield { data: Buffer.from(source.subarray(start, start + PIECE)) };
    }
  } else {
    for await (const data of createReadStream(source, { highWaterMark: PIECE })) yield { data: data as Buffer };
  }
}
