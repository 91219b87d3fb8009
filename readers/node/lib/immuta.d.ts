/** Reads and follows the logs of immuta, a local message bus that is a file. All times are in milliseconds, all sizes in bytes. */

/**
 * Who is writing: a writer holds its lock; the last one ended in order; it died; a flush of its failed and it publishes nothing more.
 */
export type WriterState = "alive" | "closed" | "gone" | "failed";

/** Where a tailer begins; made by the functions of `Start`. */
export interface Start {
  readonly kind: "sequence" | "last";
  readonly number: number;
}

export declare const Start: {
  /** With record 0: the default. */
  beginning(): Start;
  /** With what is new. */
  end(): Start;
  /** With record n, also where that is yet to come. */
  sequence(n: number): Start;
  /** With the last n records, or as many as there are. */
  last(n: number): Start;
};

export interface ReaderOptions {
  /** How long a log that is not there may take to appear, in milliseconds. Default: 0. */
  waitForLog?: number;
  /** The largest payload that is taken, in bytes. Default: 1 GiB. */
  maxRecord?: number;
  /** Where control pages are. Default: what the environment variable IMMUTA_CONTROL_DIR names, else /dev/shm. */
  controlDir?: string;
  /** Ends the wait for the log. */
  signal?: AbortSignal;
}

export interface TailOptions {
  /** Ends the waits of the tailer with its reason. */
  signal?: AbortSignal;
}

/** A log that is open for reading. It takes no lock, and the writer does not notice it. */
export declare class Reader {
  private constructor();
  /** Opens a log. Rejects with NotFound, NotALog, Damaged, or the system's error. */
  static open(path: string | URL, options?: ReaderOptions): Promise<Reader>;
  /** The path, as it was given. */
  readonly path: string;
  /** The number of records that are published now; beside a writer that never pauses it may be a little less. */
  count(): Promise<number>;
  /** The payload of a record, or null where there is none yet. Finds it by the index, or by walking the log. */
  get(sequence: number): Promise<Buffer | null>;
  /** Who is writing. Where only the file can tell, without an index, this walks the log. */
  writer(): Promise<WriterState>;
  /** A tailer. Rejects with Damaged where the way to its start cannot be walked. */
  tail(start?: Start, options?: TailOptions): Promise<Tailer>;
  /** Gives the file back; tailers stay open. */
  close(): Promise<void>;
}

/** A record. Its payload is a view of memory that nobody writes; copy it if you keep few of many. */
export declare class Record {
  private constructor();
  readonly sequence: number;
  /** Of its size field in the file. */
  readonly position: number;
  readonly payload: Buffer;
}

/** Records that follow each other: their payloads, and where the first one is. */
export declare class Batch implements Iterable<Buffer> {
  private constructor();
  readonly sequence: number;
  readonly position: number;
  readonly payloads: Buffer[];
  readonly length: number;
  [Symbol.iterator](): IterableIterator<Buffer>;
}

/**
 * Goes through the records of a log, and waits for more, also across a writer's end and restart. It does one thing at a time: a call
 * before the last one has returned is refused. After an error it is where it was: before the record that cannot be read.
 *
 * All waits reject with Damaged, TooLarge, Replaced, Stopped, the signal's reason, or the system's error.
 */
export declare class Tailer implements AsyncIterable<Record> {
  private constructor();
  /** The sequence of the next record. */
  readonly sequence: number;
  /** The position of the next record; of an earlier one while it waits for a record beyond the end. */
  readonly position: number;
  /** The next record; waits for it without limit. */
  next(): Promise<Record>;
  /** The next record; waits for at most `limit` milliseconds, then rejects with TimedOut. */
  nextTimeout(limit: number): Promise<Record>;
  /** The next record if there is one now, else null. */
  tryNext(): Promise<Record | null>;
  /** Up to `limit` (1024) records that are there already; waits for the first one like `next` and `nextTimeout`. */
  nextBatch(limit?: number, timeout?: number): Promise<Batch>;
  /** Ends the waits, and the iteration, for good. */
  stop(): void;
  /** Who is writing. */
  writer(): Promise<WriterState>;
  /** Gives the file back, and ends a wait with an error. Payloads that were handed out stay. */
  close(): Promise<void>;
  /** Ends once stopped. Leaving the loop does not close the tailer. */
  [Symbol.asyncIterator](): AsyncIterator<Record, undefined>;
}

/** The base of all errors of this package. */
export declare class ImmutaError extends Error {
  readonly path: string;
  /** Of the size field in question, or 0 for the number of records. */
  readonly position?: number;
  readonly sequence?: number;
}
/** There is no log of that name, or there was none within `waitForLog`. */
export declare class NotFound extends ImmutaError {}
/** The name leads to something that is not an ordinary file. */
export declare class NotALog extends ImmutaError {}
/** The log cannot be what it says. */
export declare class Damaged extends ImmutaError {}
/** A record is larger than `maxRecord`. */
export declare class TooLarge extends ImmutaError {}
/** The log was removed, or another file took its name, and all that was readable was delivered. */
export declare class Replaced extends ImmutaError {}
/** No record came within the limit. */
export declare class TimedOut extends ImmutaError {}
/** `stop()` was called. */
export declare class Stopped extends ImmutaError {}
