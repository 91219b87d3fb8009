// Following a log, record by record or many at a time.

import { Damaged, Replaced, Stopped, TimedOut, TooLarge } from "./errors.js";
import { CHUNK, FIRST, SMALL, number } from "./log.js";

const EMPTY = Buffer.alloc(0);

/** A record. */
export class Record {
  constructor(sequence, position, payload) {
    this.sequence = sequence;
    this.position = position;
    this.payload = payload;
  }
}

/** Records that follow each other. */
export class Batch {
  constructor(sequence, position, payloads) {
    this.sequence = sequence;
    this.position = position;
    this.payloads = payloads;
  }

  get length() {
    return this.payloads.length;
  }

  [Symbol.iterator]() {
    return this.payloads[Symbol.iterator]();
  }
}

export class Tailer {
  #progress;
  #maxRecord;
  #signal;
  #abort = () => this.#wake?.();
  #wake = null; // Ends the sleep that is under way.
  #busy = false;
  #stopped = false;
  #closed = null; // The promise of close().
  #sequence = 0;
  #target = 0; // Records before this one are passed over.
  #chunk = EMPTY;
  #base = FIRST; // The position of the chunk; that of the next record is #base + #at.
  #at = 0;
  #until = 0; // The first record that the chunk may not tell of.

  constructor(progress, maxRecord, signal) {
    this.#progress = progress;
    this.#maxRecord = maxRecord;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#abort, { once: true });
  }

  /** Goes to a record, or the end, whose place is known, and from there to record `target`. Not for users. */
  _begin(sequence, position, target) {
    this.#sequence = sequence;
    this.#base = position;
    this.#target = target;
  }

  get sequence() {
    return Math.max(this.#sequence, this.#target);
  }

  get position() {
    return this.#base + this.#at;
  }

  async next() {
    return this.#take() ?? (await this.#slow(undefined));
  }

  async nextTimeout(limit) {
    return this.#take() ?? (await this.#slow(limit));
  }

  async tryNext() {
    const record = this.#take();
    if (record !== null) return record;
    const found = await this.#alone(() => this.#look());
    this.#check();
    return found ? this.#take() : null;
  }

  async nextBatch(limit = 1024, timeout = undefined) {
    if (!(limit >= 1)) throw new RangeError("limit must be 1 or more");
    if (this.#busy || !this.#isWhole()) await this.#alone(() => this.#wait(timeout));
    const batch = new Batch(this.#sequence, this.position, []);
    const { payloads } = batch;
    const chunk = this.#chunk;
    const most = Math.min(limit, this.#until - this.#sequence);
    let at = this.#at;
    while (payloads.length < most && at + 8 <= chunk.length) {
      const end = at + 8 + chunk.readUInt32LE(at);
      if (end > chunk.length || chunk.readUInt32LE(at + 4) !== 0) break;
      payloads.push(chunk.subarray(at + 8, end));
      at = end;
    }
    this.#at = at;
    this.#sequence += payloads.length;
    return batch;
  }

  stop() {
    this.#stopped = true;
    this.#wake?.();
  }

  async writer() {
    return this.#alone(() => {
      const { log } = this.#progress;
      if (this.#sequence > log.hint[0]) log.hint = [this.#sequence, this.position];
      return this.#progress.writer();
    });
  }

  close() {
    if (this.#closed === null) {
      this.#signal?.removeEventListener("abort", this.#abort);
      this.#wake?.();
      this.#chunk = EMPTY;
      this.#closed = this.#busy ? Promise.resolve() : this.#release();
    }
    return this.#closed;
  }

  [Symbol.asyncIterator]() {
    return {
      next: async () => {
        const record = this.#take();
        if (record !== null) return { value: record, done: false };
        try {
          return { value: await this.#slow(undefined), done: false };
        } catch (error) {
          if (error instanceof Stopped) return { value: undefined, done: true };
          throw error;
        }
      },
    };
  }

  /** The next record, if it is in the chunk. */
  #take() {
    const chunk = this.#chunk;
    const at = this.#at;
    if (at + 8 > chunk.length || this.#sequence >= this.#until || this.#busy) return null;
    const end = at + 8 + chunk.readUInt32LE(at);
    if (end > chunk.length || chunk.readUInt32LE(at + 4) !== 0) return null;
    this.#at = end;
    return new Record(this.#sequence++, this.#base + at, chunk.subarray(at + 8, end));
  }

  #isWhole() {
    const left = this.#chunk.length - this.#at - 8;
    return left >= 0 && this.#sequence < this.#until && number(this.#chunk, this.#at) <= left;
  }

  async #slow(limit) {
    await this.#alone(() => this.#wait(limit));
    return this.#take();
  }

  /** One call at a time, since each begins where the one before it ended. */
  async #alone(work) {
    if (this.#busy) throw new Error("a tailer does one thing at a time: another call has not returned yet");
    this.#check();
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
      if (this.#closed !== null) await this.#release();
    }
  }

  async #release() {
    this.#progress.close();
    await this.#progress.log.close();
  }

  #check() {
    if (this.#closed !== null) throw new Error("the tailer is closed");
  }

  /** Returns once there is a record in the chunk. */
  async #wait(limit) {
    const deadline = limit === undefined ? Infinity : performance.now() + limit;
    for (;;) {
      this.#signal?.throwIfAborted();
      if (this.#stopped) throw new Stopped(this.#progress.log.path);
      const found = await this.#look();
      this.#check(); // It may have been closed meanwhile.
      if (found) return;
      const left = deadline - performance.now();
      if (left <= 0) throw new TimedOut(this.#progress.log.path, limit);
      if (this.#stopped || this.#signal?.aborted) continue;
      await this.#sleep(left);
      this.#check();
    }
  }

  #sleep(limit) {
    return new Promise((done) => {
      this.#wake = this.#progress.watch(limit, done);
    }).finally(() => {
      this.#wake = null;
    });
  }

  /** Whether there is a record, now; where there is none, whether there will be one. */
  async #look() {
    const progress = this.#progress;
    if (await this.#fill()) return true;
    this.#check();
    if (!(await progress.lookUp())) return false;
    this.#check();
    if (await this.#fill()) return true;
    const { log } = progress;
    if (progress.replaced) throw new Replaced(log.path);
    if (progress.count < this.#sequence) {
      const count = await log.count(); // It may be that more came since.
      if (count < this.#sequence) throw new Damaged(log.path, 0, undefined, `${this.#sequence} records were there, now ${count} are`);
    }
    return false;
  }

  /** Has a published record, whole, in the chunk; false where there is none. */
  async #fill() {
    if (this.#isWhole()) return true;
    const { log } = this.#progress;
    const { count = Infinity, end, exact = true } = await this.#progress.published();
    if (end === undefined ? count <= this.#sequence : end <= this.position) return false;
    const limit = end ?? (await log.size()); // After the count: it covers what the count covers.
    if (this.#sequence < this.#target) {
      if (!exact) return false; // The way ends in the midst of a record.
      const [sequence, position] = await log.walk(this.#sequence, this.position, Math.min(this.#target, count), limit);
      this.#put(sequence, position, EMPTY, count);
      if (end === undefined ? sequence >= count : position >= limit) return false;
    }
    const sequence = this.#sequence;
    const position = this.position;
    // By the count one cannot tell how far to read: a live writer keeps zeros behind the last record.
    let window = end !== undefined || count - sequence > 64 ? CHUNK : SMALL;
    // A record that is whole in so few bytes is not larger than maxRecord. A truncated file ends before the place.
    window = Math.max(Math.min(window, limit - position, 8 + this.#maxRecord), 0);
    let chunk = await log.read(position, window);
    if (chunk.length < 8) {
      if (!exact && chunk.length === window) return false;
      throw log.sizeFieldBeyond(position, sequence, limit);
    }
    const size = number(chunk);
    if (size > limit - position - 8) {
      if (!exact) return false;
      throw log.payloadBeyond(position, sequence, chunk.readBigUInt64LE(), limit);
    }
    if (size > this.#maxRecord) throw new TooLarge(log.path, position, sequence, size, this.#maxRecord);
    if (size > chunk.length - 8) {
      const there = await log.size(); // A page may say anything: memory is taken for what is in the file.
      if (size > there - position - 8) throw log.payloadBeyond(position, sequence, size, there);
      chunk = await log.read(position, 8 + size);
      if (size > chunk.length - 8) throw log.payloadBeyond(position, sequence, size, position + chunk.length);
    }
    this.#put(sequence, position, chunk, count);
    this.#progress.news();
    return true;
  }

  #put(sequence, position, chunk, until) {
    if (this.#closed !== null) return;
    this.#until = until;
    this.#sequence = sequence;
    this.#base = position;
    this.#at = 0;
    this.#chunk = chunk;
  }
}
