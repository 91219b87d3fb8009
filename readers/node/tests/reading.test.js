// What is in a log: sizes, ends, damage, places.

import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import { test } from "node:test";
import { crc32c } from "../lib/blocks.js";
import { Damaged, NotALog, NotFound, Reader, Start, TimedOut, TooLarge } from "../lib/immuta.js";
import { CHUNK, Log, atLeast } from "../lib/log.js";
import { LIMIT, all, entry, header, isOver, logBytes, place, rejects, u64 } from "./support.js";

const texts = (records) => records.map(({ payload }) => payload.toString());

test("records of all sizes", async (t) => {
  const here = place(t);
  const sizes = [0, 1, 7, 8, 9, 4079, 4080, 4081, CHUNK - 17, CHUNK - 8, CHUNK, 3 * CHUNK + 1, 0, 0, 5];
  const payloads = [...sizes, ...Array.from({ length: 20000 }, (_, n) => n % 97)].map((size, n) => Buffer.alloc(size, n % 251));
  here.write(logBytes(payloads, { tail: Buffer.alloc(100000) }));
  const records = await all(await here.tail());
  assert.equal(records.length, payloads.length);
  let position = 8;
  for (const [n, record] of records.entries()) {
    assert.deepEqual([record.sequence, record.position], [n, position]);
    assert.ok(record.payload.equals(payloads[n]));
    position += 8 + payloads[n].length;
  }
  assert.equal(await (await here.open()).count(), payloads.length);
});

test("batches, single records and iteration may be mixed, and payloads stay", async (t) => {
  const here = place(t);
  const payloads = Array.from({ length: 30000 }, (_, n) => `${n}`.repeat(n % 17));
  here.write(logBytes(payloads));
  const tailer = await here.tail();
  const got = [];
  for (let turn = 0; got.length < payloads.length; turn++) {
    assert.equal(tailer.sequence, got.length);
    const { position } = tailer;
    if (turn % 3 === 0) {
      const batch = await tailer.nextBatch(1 + ((turn * 37) % 600));
      assert.deepEqual([batch.sequence, batch.position], [got.length, position]);
      assert.ok(batch.length >= 1 && batch.length <= 1 + ((turn * 37) % 600));
      got.push(...batch);
    } else if (turn % 3 === 1) {
      const record = await tailer.next();
      assert.deepEqual([record.sequence, record.position], [got.length, position]);
      got.push(record.payload);
    } else {
      for await (const { payload } of tailer) {
        got.push(payload);
        break;
      }
    }
  }
  assert.deepEqual(got.map(String), payloads);
  await rejects(tailer.nextBatch(1, 0), TimedOut);
  await rejects(tailer.nextBatch(0), RangeError);
});

test("what is behind the count is nothing", async (t) => {
  const here = place(t);
  for (const tail of [[], Array(50).fill(0), Array(50).fill(255), u64(9), u64(2n ** 64n - 1n), [1, 0, 0]]) {
    here.write(logBytes(["one", ""], { tail: Buffer.from(tail) }));
    assert.deepEqual(texts(await all(await here.tail())), ["one", ""]);
  }
  for (const size of [0, 8, 4096]) {
    here.write(Buffer.alloc(size));
    assert.equal(await (await here.open()).count(), 0);
    assert.deepEqual(await all(await here.tail()), []);
  }
});

/** The log is damaged there, after `before` records. */
async function damage(here, position, sequence, before) {
  const message = `${here.path}: damaged at position ${position}${sequence === undefined ? "" : `, record ${sequence}`}: `;
  let records = 0;
  await assert.rejects(
    async () => {
      const tailer = await here.tail();
      for (; await tailer.tryNext(); records++);
    },
    (error) => {
      assert.ok(error instanceof Damaged, error.stack);
      assert.deepEqual([error.position, error.sequence, error.path], [position, sequence, here.path]);
      assert.ok(error.message.startsWith(message), error.message);
      return true;
    },
  );
  assert.equal(records, before);
}

test("counts that cannot be", async (t) => {
  const here = place(t);
  const logs = [Buffer.alloc(1), Buffer.alloc(7), logBytes(["a"], { count: 3 }), u64(1), logBytes(["abc"], { count: 2n ** 64n - 1n }), u64(2n ** 63n)];
  for (const log of logs) {
    here.write(log);
    await damage(here, 0, undefined, 0);
  }
});

test("sizes that lie allocate nothing", async (t) => {
  const here = place(t);
  for (const size of [2n ** 64n - 1n, 2n ** 64n - 8n, 2n ** 63n, 2n ** 63n - 1n, 2n ** 40n, 2n ** 32n + 1n, 43n]) {
    here.write(logBytes(["first", u64(0)], { count: 3, tail: Buffer.concat([u64(size), Buffer.alloc(42)]) }));
    const before = process.memoryUsage().arrayBuffers;
    await damage(here, 37, 2, 2);
    assert.ok(process.memoryUsage().arrayBuffers - before < 8 << 20);
  }
});

test("torn tails", async (t) => {
  const here = place(t);
  const whole = logBytes(["first", "x".repeat(30), "y".repeat(300)]);
  for (const cut of [1, 299, 300, 307]) {
    here.write(whole.subarray(0, whole.length - cut));
    await damage(here, 59, 2, 2);
  }
  here.write(logBytes(["x".repeat(300), "y"]).subarray(0, 316));
  await damage(here, 316, 1, 1);
});

test("damage is met by get and by starts behind it", async (t) => {
  const here = place(t);
  here.write(logBytes(["a", u64(0)], { count: 4, tail: Buffer.concat([u64(2n ** 63n), Buffer.alloc(99)]) }));
  const reader = await here.open();
  assert.equal(String(await reader.get(0)), "a");
  for (const work of [reader.get(2), reader.get(3), reader.tail(Start.sequence(3)), reader.tail(Start.end())]) {
    await rejects(work, Damaged, { position: 33, sequence: 2 });
  }
  here.write(logBytes(["x".repeat(300), "y"], { count: 3 })); // It ends where record 2 should begin.
  for (const work of [(await here.open()).get(2), here.tail(Start.end())]) await rejects(work, Damaged, { position: 325, sequence: 2 });
});

test("maxRecord", async (t) => {
  const here = place(t);
  here.write(logBytes(["a".repeat(10), "b".repeat(11), "c"]));
  const reader = await here.open({ maxRecord: 10 });
  const tailer = await reader.tail();
  here.later(() => tailer.close());
  await tailer.next();
  for (let n = 0; n < 2; n++) await rejects(tailer.tryNext(), TooLarge, { sequence: 1, position: 26 });
  await rejects(reader.get(1), TooLarge);
  here.write(Buffer.concat([u64(1, 2n ** 32n)]));
  fs.truncateSync(here.path, 16 + 2 ** 32); // Sparse.
  const before = process.memoryUsage().arrayBuffers;
  await rejects((await here.tail()).next(), TooLarge);
  await rejects((await here.open()).get(0), TooLarge);
  assert.ok(process.memoryUsage().arrayBuffers - before < 8 << 20);
  await rejects(here.open({ maxRecord: -1 }), RangeError);
});

test("what is no log", async (t) => {
  const here = place(t);
  await rejects(here.open(), NotFound, { message: `${here.path}: no such log`, path: here.path });
  await rejects(Reader.open(here.directory), NotALog);
  await rejects(Reader.open("/dev/null"), NotALog);
  const server = net.createServer().listen(here.path);
  await new Promise((done) => server.once("listening", done));
  await rejects(here.open(), NotALog);
  await new Promise((done) => server.close(done));
  here.write(Buffer.alloc(8));
  await assert.rejects(Reader.open(`${here.path}/x`), { code: "ENOTDIR" });
});

test("waits for the log, or until it is aborted", async (t) => {
  const here = place(t);
  await rejects(here.open({ waitForLog: 30 }), NotFound);
  const waiting = here.open({ waitForLog: LIMIT });
  here.write(logBytes(["here"]), `${here.path}.ready`);
  assert.equal(await isOver(waiting), false);
  fs.renameSync(`${here.path}.ready`, here.path);
  assert.equal(String(await (await waiting).get(0)), "here");
  fs.unlinkSync(here.path);
  const abort = new AbortController();
  const given = here.open({ waitForLog: LIMIT, signal: abort.signal });
  abort.abort();
  await assert.rejects(given, { name: "AbortError" });
});

test("starts", async (t) => {
  const here = place(t);
  here.write(logBytes(Array.from({ length: 10 }, (_, n) => `${n}`)));
  const reader = await here.open();
  for (const [start, first] of [[undefined, 0], [Start.beginning(), 0], [Start.sequence(7), 7], [Start.last(3), 7], [Start.last(99), 0]]) {
    const tailer = await here.tail(start);
    assert.equal(tailer.sequence, first);
    const { sequence, position, payload } = await tailer.next();
    assert.deepEqual([sequence, position, String(payload)], [first, 8 + 9 * first, `${first}`]);
  }
  for (const start of [Start.end(), Start.last(0), Start.sequence(10), Start.sequence(12)]) assert.equal(await (await here.tail(start)).tryNext(), null);
  assert.deepEqual(await Promise.all([9, 0, 5, 10].map(async (n) => (await reader.get(n))?.toString())), ["9", "0", "5", undefined]);
  assert.throws(() => Start.last(-1), RangeError);
  assert.throws(() => reader.get(-1), RangeError);
});

test("new records without a page, and one beyond the end", async (t) => {
  const here = place(t);
  const writer = here.writer({ page: false });
  const tailers = [await here.tail(), await here.tail(Start.end()), await here.tail(Start.sequence(3))];
  assert.equal(await tailers[0].tryNext(), null);
  assert.equal(await tailers[2].tryNext(), null);
  for (let n = 0; n < 50; n++) {
    assert.equal(tailers[2].sequence, 3);
    writer.append(`${n}`.repeat(n));
    writer.write(Buffer.alloc(1000, 0xee), writer.end);
    if (n < 3) assert.equal(await tailers[2].tryNext(), null);
  }
  const expected = Array.from({ length: 50 }, (_, n) => `${n}`.repeat(n));
  for (const [at, first] of [0, 0, 3].entries()) assert.deepEqual(texts(await all(tailers[at])), expected.slice(first));
});

test("a truncated log is damaged, and so is one whose count falls", async (t) => {
  const here = place(t);
  here.write(logBytes(Array(2000).fill("x".repeat(1000))));
  let tailer = await here.tail();
  await tailer.next();
  fs.truncateSync(here.path, 1_000_000); // Its count still says 2000.
  await rejects(all(tailer), Damaged);
  await assert.rejects(tailer.tryNext(), (error) => error instanceof Damaged && error.position === tailer.position && tailer.sequence > 1);
  here.write(logBytes(["x", "y"]));
  tailer = await here.tail();
  assert.equal((await all(tailer)).length, 2);
  fs.truncateSync(here.path, 0);
  await rejects(tailer.nextTimeout(LIMIT), Damaged, { position: 0 });
});

test("a number that two reads never see alike is at least what they agree on", async (t) => {
  assert.equal(atLeast(u64(0x1234567), u64(0x1234589)), 0x1234500);
  assert.equal(atLeast(u64(0x12ff), u64(0x1300)), 0);
  assert.equal(atLeast(u64(0x12ff00), u64(0x130000)), 0);
  assert.equal(atLeast(u64(77), u64(77)), 77);
  const here = place(t);
  here.write(logBytes(Array(600).fill("")));
  const log = await Log.open(here.path);
  const { handle } = log;
  let count = 520;
  log.handle = { read: async (bytes) => (u64(count++).copy(bytes), { bytesRead: 8 }) };
  assert.equal(await log.count(), 512);
  assert.ok(count > 521);
  await handle.close();
});

test("closed readers say so, and give their descriptors back", async (t) => {
  const here = place(t);
  here.write(logBytes(["a", "b"]));
  const writer = here.writer();
  await (await here.tail()).tryNext(); // The table of locks stays open.
  const before = fs.readdirSync("/proc/self/fd").length;
  for (let n = 0; n < 50; n++) {
    const reader = await Reader.open(here.path, { controlDir: here.control });
    const tailer = await reader.tail();
    await Promise.all([reader.close(), reader.close()]);
    assert.equal((await all(tailer)).length, 2);
    const waiting = tailer.next();
    await tailer.close();
    await assert.rejects(waiting, /closed/);
    await assert.rejects(tailer.next(), /closed/);
    await assert.rejects(reader.count(), /closed/);
  }
  writer.append("c");
  assert.equal(fs.readdirSync("/proc/self/fd").length, before);
});

test("one call at a time", async (t) => {
  const here = place(t);
  here.write(logBytes([]));
  const tailer = await here.tail();
  const waiting = tailer.nextTimeout(LIMIT);
  await assert.rejects(tailer.next(), /one thing at a time/);
  tailer.stop();
  await assert.rejects(waiting, { name: "Stopped" });
});

test("the index", async (t) => {
  const here = place(t);
  const payloads = Array.from({ length: 4000 }, (_, n) => `${n}`.repeat(n % 9));
  const data = logBytes(payloads);
  const positions = [8];
  for (const payload of payloads) positions.push(positions.at(-1) + 8 + payload.length);
  const block = (first, end) => entry(first, positions[first], positions[end] - positions[first], end - first, crc32c(data.subarray(positions[first], positions[end])));
  here.write(data);
  const pieces = [header(here.path)];
  // Pieces of other kinds between the blocks: a flush covers nothing, a writer began.
  for (let n = 0; n < 4000; n += 500) {
    pieces.push(block(n, n + 500), entry(n + 500, positions[n + 500], 0, 0, 0, 0x101), entry(n + 500, positions[n + 500], 2n ** 63n, 2n ** 63n, 0, 2));
  }
  const index = (list) => here.write(Buffer.concat(list), `${here.path}.idx`);
  const get = async (n, path = here.path) => {
    const reader = await Reader.open(path, { controlDir: here.control });
    return String(await reader.get(n).finally(() => reader.close()));
  };
  const breakFirst = (broken) => {
    const fd = fs.openSync(here.path, "r+");
    fs.writeSync(fd, broken ? u64(2n ** 62n) : data.subarray(8, 16), 0, 8, 8);
    fs.closeSync(fd);
  };

  await t.test("checksum", () => {
    assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  });
  await t.test("finds what cannot be walked to", async () => {
    index(pieces);
    breakFirst(true);
    for (const n of [500, 501, 999, 1000, 1499, 1500, 3499, 3999]) assert.equal(await get(n), payloads[n]);
    await rejects(get(499), Damaged);
    const tailer = await here.tail(Start.sequence(2222));
    assert.equal((await tailer.next()).position, positions[2222]);
    assert.equal((await (await here.tail(Start.last(1))).next()).sequence, 3999);
    fs.symlinkSync(here.path, `${here.path}.link`);
    assert.equal(await get(3000, `${here.path}.link`), payloads[3000]);
    index([...pieces.slice(0, 7), Buffer.from("torn")]);
    assert.equal(await get(3999), payloads[3999]); // Walked to from the end of the last block.
  });
  await t.test("pieces with wrong checksums are none", async () => {
    index(pieces.map((each, n) => ([0, 1, 10].includes(n) ? each : Buffer.concat([each.subarray(0, 60), Buffer.alloc(4)]))));
    assert.equal(await get(3999), payloads[3999]);
    await rejects(get(1499), Damaged);
  });
  /** A block from record 3000 to the end that says it is of others. Its checksum is true. */
  const lie = (sequence, records, bytes) => entry(sequence, positions[3000], bytes.length - positions[3000], records, crc32c(bytes.subarray(positions[3000])));
  await t.test("what is not true is ignored", async () => {
    breakFirst(false);
    const [, ...entries] = pieces;
    const lies = [
      [header(here.path, { inode: 1 }), ...entries],
      [header(here.path, { birth: 1 }), ...entries],
      [header(here.path, { magic: "xmmutaIX" }), ...entries],
      [header(here.path, { version: 2 }), ...entries],
      [Buffer.concat([pieces[0].subarray(0, 60), Buffer.from("abcd")]), ...entries],
      [pieces[0].subarray(0, 20)],
      [],
      [pieces[0], entry(3000, positions[3000], 800, 99, 7)],
      [pieces[0], entry(3000, positions[3000], 2n ** 63n, 9, 7)],
      [pieces[0], entry(3000, 0, 8, 1, 7)],
      [pieces[0], lie(3500, 1000, data)],
      [pieces[0], entry(3000, 2n ** 64n - 1n, 2n ** 64n - 1n, 2n ** 64n - 1n, 7)],
      [pieces[0], ...Array(50).fill(Buffer.alloc(64, 255))],
    ];
    for (const each of lies) {
      index(each);
      for (const n of [0, 257, 3000, 3999]) assert.equal(await get(n), payloads[n]);
    }
    // Foreign ones are not followed even where the log cannot be walked.
    breakFirst(true);
    for (const each of lies.slice(0, 5)) {
      index(each);
      await rejects(get(3000), Damaged);
    }
  });
  await t.test("a block beyond the published end is ignored", async () => {
    here.write(data);
    const writer = here.writer();
    const zeros = Buffer.alloc(800);
    writer.append("last");
    writer.write(zeros, writer.end);
    const bytes = Buffer.concat([data, logBytes(["last"]).subarray(8)]);
    for (const [block, record] of [[lie(3100, 100, Buffer.concat([bytes, zeros])), payloads[3100]], [lie(3100, 100, bytes), payloads[3000]]]) {
      index([pieces[0], block]);
      assert.equal(await get(3100), record);
    }
    writer.die();
  });
  await t.test("one large record is known by its size", async () => {
    const large = logBytes([...Array(300).fill("a"), "L".repeat(500000), "z"]);
    here.write(large);
    const end = 8 + 300 * 9;
    index([header(here.path), entry(0, 8, end - 8, 300, crc32c(large.subarray(8, end))), entry(300, end, 500008, 1, 12345)]);
    breakFirst(true);
    assert.equal((await get(300)).length, 500000);
    assert.equal(await get(301), "z");
  });
});
