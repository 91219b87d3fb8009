// Opening a log, and looking into it without following it. immuta.d.ts has the documentation.

import { setTimeout as sleep } from "node:timers/promises";
import { NotFound, TooLarge } from "./errors.js";
import { FIRST, Log, number } from "./log.js";
import { Progress } from "./progress.js";
import { Tailer } from "./tailer.js";

export * from "./errors.js";
export { Batch, Record, Tailer } from "./tailer.js";

const GIB = 2 ** 30;
const LARGEST = 2 ** 32 - 16; // What a Buffer of any Node that is supported has room for.

function natural(n, name, most = Number.MAX_SAFE_INTEGER) {
  if (!Number.isInteger(n) || n < 0 || n > most) throw new RangeError(`${name} must be a whole number from 0 to ${most}`);
  return n;
}

export const Start = Object.freeze({
  beginning: () => ({ kind: "sequence", number: 0 }),
  end: () => ({ kind: "last", number: 0 }),
  sequence: (n) => ({ kind: "sequence", number: natural(n, "sequence") }),
  last: (n) => ({ kind: "last", number: natural(n, "last") }),
});

export class Reader {
  #log;
  #progress;
  #maxRecord;
  #controlDir;
  #pending = Promise.resolve();
  #closed = null; // The promise of close().

  constructor(log, maxRecord, controlDir) {
    this.#log = log;
    this.#maxRecord = maxRecord;
    this.#controlDir = controlDir;
    this.#progress = new Progress(log, controlDir);
  }

  static async open(path, { waitForLog = 0, maxRecord = GIB, controlDir, signal } = {}) {
    natural(maxRecord, "maxRecord", LARGEST);
    const deadline = performance.now() + waitForLog;
    for (let delay = 1; ; delay = Math.min(delay * 2, 20)) {
      signal?.throwIfAborted();
      try {
        return new Reader(await Log.open(String(path)), maxRecord, controlDir);
      } catch (error) {
        const left = deadline - performance.now();
        if (!(error instanceof NotFound) || !(left > 0)) throw error;
        await sleep(Math.min(delay, left), undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    }
  }

  get path() {
    return this.#log.path;
  }

  count() {
    return this.#inTurn(async () => (await this.#progress.event())[0]);
  }

  get(sequence) {
    natural(sequence, "sequence");
    return this.#inTurn(async () => {
      const log = this.#log;
      const [count, end] = await this.#progress.event();
      if (sequence >= count) return null;
      const position = await log.locate(sequence, count, end);
      const limit = await log.size();
      const field = await log.read(position, 8);
      if (field.length < 8) throw log.sizeFieldBeyond(position, sequence, limit);
      const size = number(field);
      if (size > limit - position - 8) throw log.payloadBeyond(position, sequence, field.readBigUInt64LE(), limit);
      if (size > this.#maxRecord) throw new TooLarge(log.path, position, sequence, size, this.#maxRecord);
      const payload = await log.read(position + 8, size);
      if (payload.length < size) throw log.payloadBeyond(position, sequence, size, position + 8 + payload.length);
      return payload;
    });
  }

  writer() {
    return this.#inTurn(() => this.#progress.writer());
  }

  tail(start = Start.beginning(), { signal } = {}) {
    return this.#inTurn(async () => {
      signal?.throwIfAborted();
      const log = this.#log.share();
      const progress = new Progress(log, this.#controlDir);
      try {
        const [count, end] = await progress.event();
        const target = start.kind === "sequence" ? start.number : Math.max(0, count - start.number);
        const reached = Math.min(target, count);
        let position = FIRST;
        if (reached > 0) position = target >= count && end !== undefined ? end : await log.locate(reached, count, end);
        const tailer = new Tailer(progress, this.#maxRecord, signal);
        tailer._begin(reached, position, target);
        return tailer;
      } catch (error) {
        progress.close();
        await log.close();
        throw error;
      }
    });
  }

  close() {
    this.#closed ??= this.#pending.then(async () => {
      this.#progress.close();
      await this.#log.close();
    });
    return this.#closed;
  }

  /** One after the other: they share what is known of the page. */
  #inTurn(work) {
    if (this.#closed !== null) return Promise.reject(new Error("the reader is closed"));
    const result = this.#pending.then(work);
    this.#pending = result.then(
      () => {},
      () => {},
    );
    return result;
  }
}

// `await using`, where the language has it.
if (Symbol.asyncDispose) {
  for (const each of [Reader, Tailer]) {
    each.prototype[Symbol.asyncDispose] = function () {
      return this.close();
    };
  }
}
