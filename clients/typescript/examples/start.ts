/** What the examples share: the client they use, and how they report a failure. */
import { Godoty } from "@godoty/client";

/** Runs the example called `name` against the server at GODOTY_LISTEN. If it fails, the process exits with code 1. */
export function start(name: string, example: (godoty: Godoty) => Promise<void>): void {
  connected(example).catch((error: unknown) => {
    console.error(`${name}:`, error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}

async function connected(example: (godoty: Godoty) => Promise<void>): Promise<void> {
  const godoty = new Godoty();
  try {
    await example(godoty);
  } finally {
    godoty.close();
  }
}
