// The file: its count, its bytes, and where its records lie. It is read in bulk, and not synchronously: a disk may be slow.

import { constants, promises as fs, readSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { find } from "./blocks.js";
import { Damaged, NotALog, NotFound } from "./errors.js";

export const FIRST = 8; // The position of the first record.
export const CHUNK = 512 * 1024; // Bytes that are read at once; their records keep the event loop for 2 ms or so.
export const SMALL = 4096;
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** A number of the format. Above 2^53 it is not exact, but no file is so large: it is only ever found to be too much. */
export const number = (buffer, at = 0) => buffer.readUInt32LE(at + 4) * 0x100000000 + buffer.readUInt32LE(at);

/**
 * Of two reads of a number that only grows, what it was at least: the bytes in which they agree from the top.
 *
 * A read(2) beside a store is not promised to be whole, and two reads beside a busy writer are never alike.
 */
export function atLeast(before, after) {
  const low = Buffer.from(after.subarray(0, 8));
  for (let at = 7; at >= 0; at--) {
    if (before[at] !== after[at]) {
      low.fill(0, 0, at + 1);
      break;
    }
  }
  return number(low);
}

/** An open log, shared by a reader and its tailers; the last of them closes it. */
export class Log {
  #users = 1;
  #seen = 0; // A count that was true.
  #last = Buffer.alloc(8); // What was read of it last.
  #look = Buffer.alloc(8);

  /** @returns {Promise<Log>} */
  static async open(path) {
    let status, handle;
    try {
      // Looked at before it is opened: to open a device or a FIFO does something.
      if (!(await fs.stat(path)).isFile()) throw new NotALog(path);
      handle = await fs.open(path, FLAGS);
    } catch (error) {
      throw error.code === "ENOENT" ? new NotFound(path) : error;
    }
    try {
      status = await handle.stat({ bigint: true });
      if (!status.isFile()) throw new NotALog(path);
      const log = new Log(path, handle, status);
      const count = await log.#count(true);
      const size = await log.size(); // After the count: a log only grows.
      if (count > Math.max(size - 8, 0) / 8) {
        const exact = (await log.read(0, 8)).readBigUInt64LE();
        throw new Damaged(path, 0, undefined, `${exact} records cannot be in a file of ${size} bytes`);
      }
      return log;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  constructor(path, handle, status) {
    this.path = path;
    this.absolute = resolve(path); // The process may change its directory.
    this.handle = handle;
    this.device = status.dev;
    this.inode = status.ino;
    this.owner = status.uid;
    this.birth = status.birthtimeNs;
    this.hint = [0, FIRST]; // A record, or the end, whose position is known.
  }

  share() {
    this.#users++;
    return this;
  }

  async close() {
    if (--this.#users === 0) await this.handle.close(); // It waits for reads that are under way.
  }

  /** The number of records that the file says, or, beside a writer that never pauses, a little less. */
  count() {
    return this.#count(false);
  }

  async #count(first) {
    let before = await this.#countBytes();
    if (!first && number(before) === this.#seen) return this.#seen; // Mostly there is nothing new.
    for (let reads = 0; reads < 4; reads++) {
      const after = await this.#countBytes();
      if (before.equals(after)) {
        const count = number(after);
        if (!first && count < this.#seen) return count; // It fell: somebody wrote into the log.
        if (!first) this.#seen = count;
        return count;
      }
      this.#seen = Math.max(this.#seen, atLeast(before, after));
      before = after;
    }
    return this.#seen;
  }

  async #countBytes() {
    const bytes = Buffer.alloc(8);
    const { bytesRead } = await this.handle.read(bytes, 0, 8, 0);
    if (bytesRead > 0 && bytesRead < 8) {
      throw new Damaged(this.path, 0, undefined, `the file has ${bytesRead} bytes, fewer than the 8 of the number of records`);
    }
    this.#last = bytes;
    return bytes;
  }

  /**
   * Whether the count may be another than when it was read last. For polling, and synchronous, as `hasItsName` is: what was looked at
   * a moment ago is in memory, and a thread for each look would double what an idle follower costs.
   */
  hasMoved() {
    readSync(this.handle.fd, this.#look, 0, 8, 0);
    return !this.#look.equals(this.#last);
  }

  /** The count that was read last: if it has not moved, then it was read twice alike. */
  lastRead() {
    return number(this.#last);
  }

  async size() {
    return (await this.handle.stat()).size;
  }

  /** Up to `size` bytes; fewer only at the end of the file. They are the caller's. */
  async read(position, size) {
    const bytes = Buffer.allocUnsafeSlow(size);
    let got = 0;
    while (got < size) {
      // A call gives less than 2 GiB.
      const { bytesRead } = await this.handle.read(bytes, got, Math.min(size - got, 0x40000000), position + got);
      if (bytesRead === 0) break;
      got += bytesRead;
    }
    return got === size ? bytes : bytes.subarray(0, got);
  }

  /** Whether the path still leads to this file. Where that cannot be told, it does. */
  hasItsName() {
    try {
      const status = statSync(this.absolute, { bigint: true, throwIfNoEntry: false });
      return status !== undefined && status.dev === this.device && status.ino === this.inode;
    } catch (error) {
      return error.code !== "ENOTDIR";
    }
  }

  sizeFieldBeyond(position, sequence, limit) {
    return new Damaged(this.path, position, sequence, `its size field lies beyond the end at ${limit}`);
  }

  payloadBeyond(position, sequence, size, limit) {
    return new Damaged(this.path, position, sequence, `${size} bytes do not fit before the end at ${limit}`);
  }

  /** From a record to record `target`, or to where `limit` is met exactly: [sequence, position]. */
  async walk(sequence, position, target, limit) {
    let window = SMALL;
    while (sequence < target && position < limit) {
      const chunk = await this.read(position, Math.min(window, limit - position));
      const before = sequence;
      let at = 0;
      for (; sequence < target && at + 8 <= chunk.length; sequence++) {
        const size = number(chunk, at);
        if (size > limit - position - at - 8) throw this.payloadBeyond(position + at, sequence, chunk.readBigUInt64LE(at), limit);
        at += 8 + size;
      }
      if (sequence === before) throw this.sizeFieldBeyond(position, sequence, limit);
      position += at;
      // Between records that are large there is no sense in reading what is skipped.
      window = sequence - before >= 16 ? CHUNK : SMALL;
    }
    return [sequence, position];
  }

  /** The position of record `sequence`, or of the end, where `count` records end before `end`, or the file does. */
  async locate(sequence, count, end) {
    const limit = end ?? (await this.size());
    let start = this.hint[0] <= sequence ? this.hint : [0, FIRST];
    if (sequence - start[0] > 256) {
      const found = await find(this, sequence, count, limit);
      if (found !== null && found[0] > start[0]) start = found;
    }
    const [reached, position] = await this.walk(start[0], start[1], sequence, limit);
    if (reached < sequence) throw this.sizeFieldBeyond(position, reached, limit);
    this.hint = [sequence, position];
    return position;
  }

  /** Whether the file ends right behind its last record, as a clean close leaves it. */
  async endsExactly() {
    try {
      const count = await this.count();
      return (count ? await this.locate(count, count) : FIRST) === Math.max(await this.size(), FIRST);
    } catch (error) {
      if (error instanceof Damaged) return false;
      throw error;
    }
  }
}
