#!/usr/bin/env node
// Prints what is appended to a log from now on, and survives its writers. Ctrl-C ends it.
//
//     node example/tail.js events.log     # and in another terminal: immuta append events.log

import { Reader, Start, TimedOut } from "../lib/immuta.js";

const [path] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: tail.js LOG");
  process.exit(2);
}
const ending = new AbortController();
process.once("SIGINT", () => ending.abort());
try {
  console.error(`waiting for ${path}`);
  const reader = await Reader.open(path, { waitForLog: 60_000, signal: ending.signal });
  const tailer = await reader.tail(Start.end(), { signal: ending.signal });
  console.error(`${await reader.count()} records, writer ${await reader.writer()}`);
  for (;;) {
    try {
      const record = await tailer.nextTimeout(5000);
      console.log(record.sequence, record.payload.toString());
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
      console.error(`nothing new, writer ${await tailer.writer()}`);
    }
  }
} catch (error) {
  if (!ending.signal.aborted) {
    console.error(`tail.js: ${error.message}`);
    process.exitCode = 1;
  }
}
process.exit();
