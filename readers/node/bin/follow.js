// Prints sequence, size and CRC-32 of each record of a log, and follows it. `follow` runs this.

import { parseArgs } from "node:util";
import { Damaged, ImmutaError, NotFound, Reader, Replaced, Start, TimedOut } from "../lib/immuta.js";

const USAGE = "usage: follow LOG [--skip N] [--count N] [--timeout SECONDS]";
const TABLE = new Uint32Array(256).map((_, value) => {
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  return value;
});

/** CRC-32/ISO-HDLC, as hexadecimal digits. zlib has had it since Node 20.15 only. */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at]) & 255];
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}

function argumentsOf(args) {
  const option = { type: "string" };
  const { values, positionals } = parseArgs({ args, options: { skip: option, count: option, timeout: option }, allowPositionals: true });
  if (positionals.length !== 1) throw new Error("one LOG is needed");
  const natural = (name) => {
    if (values[name] === undefined) return undefined;
    if (!/^\d+$/.test(values[name]) || BigInt(values[name]) >= 1n << 64n) throw new Error(`--${name} must be a whole number below 2^64`);
    return Math.min(Number(values[name]), Number.MAX_SAFE_INTEGER); // No log comes so far.
  };
  if (values.timeout !== undefined && !/^(\d+\.?\d*|\.\d+)$/.test(values.timeout)) throw new Error("--timeout must be a number of seconds");
  const timeout = values.timeout === undefined ? undefined : Number(values.timeout) * 1000;
  return { path: positionals[0], skip: natural("skip") ?? 0, count: natural("count") ?? Infinity, timeout };
}

/** Resolves once stdout has taken it: so that no more than a batch is in memory where its reader is slow. */
const print = (text) => new Promise((done) => (process.stdout.write(text) ? done() : process.stdout.once("drain", done)));

async function follow({ path, skip, count, timeout }) {
  if (count === 0) return;
  const reader = await Reader.open(path, { waitForLog: timeout ?? 0 });
  const tailer = await reader.tail(Start.sequence(skip));
  // Each batch is printed before the next is waited for.
  for (let left = count; left > 0; ) {
    const batch = await tailer.nextBatch(Math.min(1024, left), timeout);
    let sequence = batch.sequence;
    let text = "";
    for (const payload of batch) text += `${sequence++} ${payload.length} ${crc32(payload)}\n`;
    await print(text);
    left -= batch.length;
  }
}

function codeOf(error) {
  if (error instanceof NotFound || error instanceof Replaced) return 3;
  if (error instanceof Damaged) return 5;
  return error instanceof TimedOut ? 6 : 1;
}

process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
process.stdout.on("error", (error) => {
  if (error.code === "EPIPE") process.exit(0); // Nobody reads: end quietly.
  console.error(`follow: ${error.message}`);
  process.exit(1);
});
let options;
try {
  options = argumentsOf(process.argv.slice(2));
} catch (error) {
  console.error(`follow: ${error.message}\n${USAGE}`);
  process.exit(2);
}
try {
  await follow(options);
  process.exitCode = 0;
} catch (error) {
  console.error(`follow: ${error instanceof ImmutaError || error.syscall ? error.message : error.stack}`);
  process.exitCode = codeOf(error);
}
process.stdout.write("", () => process.exit()); // Behind all that was printed.
