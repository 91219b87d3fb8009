// A writer of logs, control pages and indexes, written from FORMAT.md, and what the tests share.
//
// Node has no fcntl: the lock of this writer is a line in a file that the tests have read instead of /proc/locks. One test takes
// the real lock, by a child in Python.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { crc32c } from "../lib/blocks.js";
import { Reader } from "../lib/immuta.js";
import { system } from "../lib/progress.js";

export const LIMIT = 20_000; // Milliseconds after which anything that a test waits for is a failure.
const BYTE = "9223372036854775806";

export const u64 = (...numbers) => {
  const bytes = Buffer.alloc(8 * numbers.length);
  numbers.forEach((number, at) => bytes.writeBigUInt64LE(BigInt(number), at * 8));
  return bytes;
};

export function logBytes(payloads, { count = payloads.length, tail = Buffer.alloc(0) } = {}) {
  return Buffer.concat([u64(count), ...payloads.flatMap((payload) => [u64(payload.length), Buffer.from(payload)]), tail]);
}

export function piece(bytes) {
  const whole = Buffer.alloc(64);
  bytes.copy(whole, 0, 0, 60);
  whole.writeUInt32LE(crc32c(whole.subarray(0, 60)), 60);
  return whole;
}

export function header(file, change = {}) {
  const { ino, birthtimeNs } = fs.statSync(file, { bigint: true });
  const { magic = "immutaIX", version = 1, inode = ino, birth = birthtimeNs } = change;
  return piece(Buffer.concat([Buffer.from(magic), u64(version, 1, 2, inode, birth, 0)]));
}

export function entry(sequence, position, length, records, crc, kind = 1) {
  const bytes = Buffer.alloc(60);
  u64(sequence, position, length, records).copy(bytes);
  bytes.writeUInt32LE(kind, 40);
  bytes.writeUInt32LE(crc, 44);
  return piece(bytes);
}

/** Appends to a log, and keeps a page where it is to. */
export class Writer {
  page = -1;
  commit = 0n;

  constructor(place, { page = true, lock = true, beats = true } = {}) {
    this.place = place;
    this.fd = fs.openSync(place.path, fs.constants.O_RDWR | fs.constants.O_CREAT);
    const { dev, ino, birthtimeNs, size } = fs.fstatSync(this.fd, { bigint: true });
    const old = Buffer.alloc(Number(size));
    fs.readSync(this.fd, old, 0, old.length, 0);
    this.count = size ? Number(old.readBigUInt64LE()) : 0;
    this.end = 8;
    for (let n = 0; n < this.count; n++) this.end += 8 + Number(old.readBigUInt64LE(this.end));
    fs.ftruncateSync(this.fd, this.end);
    this.write(u64(this.count), 0);
    if (lock) fs.writeFileSync(place.locks, `1: FLOCK  ADVISORY  WRITE 1 00:00:1 0 EOF\n2: ${lockLine(dev, ino)}\n`);
    if (!page) return;
    const digits = fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim().replaceAll("-", "");
    this.pagePath = path.join(place.control, `immuta-${dev}-${ino}`);
    this.page = fs.openSync(`${this.pagePath}.new`, "w+");
    fs.ftruncateSync(this.page, 4096);
    this.store(8, 1, 4096, dev, ino, birthtimeNs, `0x${digits.slice(0, 16)}`, `0x${digits.slice(16)}`);
    this.store(80, `0x${randomBytes(8).toString("hex")}`);
    this.store(128, 1);
    this.store(256, process.hrtime.bigint());
    this.store(384, this.end);
    this.store(520, this.count, this.end);
    fs.writeSync(this.page, "immutaCP", 0);
    fs.renameSync(`${this.pagePath}.new`, this.pagePath);
    if (beats) this.beating = setInterval(() => this.store(256, process.hrtime.bigint()), 300);
  }

  store(offset, ...numbers) {
    fs.writeSync(this.page, u64(...numbers), 0, 8 * numbers.length, offset);
  }

  write(bytes, position) {
    fs.writeSync(this.fd, bytes, 0, bytes.length, position);
  }

  /** One batch. */
  append(...payloads) {
    const records = logBytes(payloads).subarray(8);
    this.write(records, this.end);
    this.count += payloads.length;
    this.end += records.length;
    this.write(u64(this.count), 0);
    this.publish();
  }

  publish(state) {
    if (this.page < 0) return;
    if (state !== undefined) this.store(128, state);
    this.commit++;
    this.store(512 + Number(this.commit % 32n) * 32 + 8, this.count, this.end);
    this.store(384, this.end);
    this.store(392, this.commit);
  }

  /** A clean end. */
  close() {
    this.publish(2);
    if (this.page >= 0) fs.unlinkSync(this.pagePath);
    this.die();
  }

  /** What is left of a writer that is killed. */
  die() {
    clearInterval(this.beating);
    if (this.fd < 0) return;
    fs.writeFileSync(this.place.locks, "");
    fs.closeSync(this.fd);
    if (this.page >= 0) fs.closeSync(this.page);
    this.fd = this.page = -1;
  }
}

export function lockLine(dev, ino) {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  const hex = (number) => number.toString(16).padStart(2, "0");
  return `OFDLCK ADVISORY  WRITE -1 ${hex(major)}:${hex(minor)}:${ino} ${BYTE} ${BYTE}`;
}

/** A directory for one test, that ends with it, and so do its readers and writers. */
export function place(t) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "immuta-node-"));
  const here = { directory, path: path.join(directory, "a.log"), control: path.join(directory, "control") };
  fs.mkdirSync(here.control);
  here.locks = system.locks = path.join(directory, "locks");
  fs.writeFileSync(here.locks, "");
  const ends = [];
  t.after(async () => {
    for (const end of ends.reverse()) await end();
    system.locks = "/proc/locks";
    fs.rmSync(directory, { recursive: true });
  });
  here.later = (end) => ends.push(end);
  here.write = (bytes, name = here.path) => fs.writeFileSync(name, bytes);
  here.writer = (options) => {
    const writer = new Writer(here, options);
    ends.push(() => writer.die());
    return writer;
  };
  here.open = async (options) => {
    const reader = await Reader.open(here.path, { controlDir: here.control, ...options });
    ends.push(() => reader.close());
    return reader;
  };
  here.tail = async (start, options) => {
    const reader = await here.open();
    const tailer = await reader.tail(start, options);
    ends.push(() => tailer.close());
    return tailer;
  };
  /** The page goes, as another test case begins. */
  here.clear = () => {
    fs.rmSync(here.path, { force: true });
    fs.rmSync(here.control, { recursive: true });
    fs.mkdirSync(here.control);
  };
  here.environment = { ...process.env, IMMUTA_CONTROL_DIR: here.control };
  return here;
}

/** All records that are there now. */
export async function all(tailer) {
  const records = [];
  for (let record; (record = await tailer.tryNext()) !== null; ) records.push(record);
  return records;
}

/** Rejects with that kind of error, and those fields. */
export const rejects = (promise, kind, fields = {}) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, String(error));
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, name);
    return true;
  });

/** Whether a promise is settled, after the event loop has gone round. */
export async function isOver(promise) {
  let over = false;
  const note = () => (over = true);
  promise.then(note, note);
  await new Promise((done) => setImmediate(done));
  return over;
}
