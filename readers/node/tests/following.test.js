// Waiting for records, by the page and without it, across writers; who is writing; what waiting costs.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Damaged, Replaced, Start, Stopped, TimedOut } from "../lib/immuta.js";
import { Log } from "../lib/log.js";
import { Progress, system, writerLockIsHeld } from "../lib/progress.js";
import { LIMIT, all, isOver, lockLine, logBytes, place, rejects, u64 } from "./support.js";

/** Whether the page is followed: the log's count says more than it. */
async function followsPage(here, writer) {
  writer.write(u64(0), writer.end);
  writer.write(u64(writer.count + 1), 0);
  return (await (await here.tail(Start.sequence(writer.count))).tryNext()) === null;
}

test("waits by the page, and by the count", async (t) => {
  for (const options of [{ page: true }, { page: false }]) {
    const here = place(t);
    const writer = here.writer(options);
    const tailer = await here.tail();
    const began = performance.now();
    for (let n = 0; n < 10; n++) {
      const waiting = n % 2 ? tailer.nextTimeout(LIMIT) : tailer.next();
      assert.equal(await isOver(waiting), false);
      writer.append(`${n}`);
      assert.equal(String((await waiting).payload), `${n}`);
    }
    // At most 20 ms each, on a machine with time; those that are missed until names are looked up would take 500.
    assert.ok(performance.now() - began < 2000);
    writer.append("a", "b");
    assert.deepEqual([...(await tailer.nextBatch())].map(String), ["a", "b"]);
    writer.die();
  }
});

test("the event loop goes on, and waiting costs little", async (t) => {
  for (const options of [{ page: true }, { page: false }]) {
    const here = place(t);
    const writer = here.writer({ ...options, beats: false });
    const tailer = await here.tail();
    await rejects(tailer.nextTimeout(1100), TimedOut);
    let looks = 0;
    const { readSync } = fs;
    const counted = options.page ? "16 384" : "8 0"; // Length and position.
    fs.readSync = (...args) => {
      looks += `${args[3]} ${args[4]}` === counted;
      return readSync(...args);
    };
    syncBuiltinESMExports(); // For those who import it by its name.
    let late = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      late = Math.max(late, performance.now() - last - 100);
      last = performance.now();
    }, 100);
    const began = performance.now();
    const used = process.cpuUsage();
    await rejects(tailer.nextTimeout(2000), TimedOut, { message: `${here.path}: nothing came within 2000 ms` });
    const { user, system: kernel } = process.cpuUsage(used);
    clearInterval(timer);
    fs.readSync = readSync;
    syncBuiltinESMExports();
    assert.ok(looks > 4 && looks < 80, `${looks} looks`); // Every 40 ms.
    assert.ok(performance.now() - began >= 1999);
    assert.ok(late < 1000, `${late} ms`);
    // The README has the figures. Beside other tests a look costs several times as much, and a busy loop 100 times.
    assert.ok(user + kernel < 60_000, `${user + kernel} µs in 2 s`);
    writer.die();
  }
});

test("timeouts", async (t) => {
  const here = place(t);
  here.writer();
  const tailer = await here.tail();
  for (const limit of [0, 5, 50]) {
    const began = performance.now();
    await rejects(tailer.nextTimeout(limit), TimedOut);
    const took = performance.now() - began;
    assert.ok(took >= limit - 1 && took < limit + 2000, `${took} ms`);
  }
});

test("stop, abort and close end a wait", async (t) => {
  for (const options of [{ page: true }, { page: false }]) {
    const here = place(t);
    here.writer(options);
    let tailer = await here.tail();
    let waiting = tailer.next();
    assert.equal(await isOver(waiting), false);
    let began = performance.now();
    tailer.stop();
    await rejects(waiting, Stopped);
    assert.ok(performance.now() - began < 1000);
    await rejects(tailer.next(), Stopped);
    for await (const _ of tailer) assert.fail();

    const another = await here.tail();
    const iterating = (async () => {
      for await (const _ of another) assert.fail();
      return "ended";
    })();
    assert.equal(await isOver(iterating), false);
    another.stop();
    assert.equal(await iterating, "ended");

    const abort = new AbortController();
    tailer = await here.tail(undefined, { signal: abort.signal });
    waiting = tailer.nextBatch();
    assert.equal(await isOver(waiting), false);
    began = performance.now();
    abort.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
    assert.ok(performance.now() - began < 1000);
    await assert.rejects(async () => {
      for await (const _ of tailer) assert.fail();
    }, /enough/);
    await assert.rejects(here.tail(undefined, { signal: abort.signal }), /enough/);
  }
});

test("pages that are not to be believed or followed", async (t) => {
  const changes = {
    right: () => {},
    "right, birth not known": (w) => w.store(40, 0),
    magic: (w) => w.store(0, 1),
    version: (w) => w.store(8, 2),
    page_bytes: (w) => w.store(16, 8192),
    device: (w) => w.store(24, 1),
    inode: (w) => w.store(32, 1),
    birth: (w) => w.store(40, 1),
    boot: (w) => w.store(56, 1),
    "end beyond the log": (w) => w.store(384, 1n << 40n),
    "count beyond the log": (w) => w.store(520, 1n << 40n),
    closed: (w) => w.store(128, 2),
    superseded: (w) => w.store(128, 4),
    old: (w) => w.store(256, process.hrtime.bigint() - 10n ** 10n),
    "of another clock": (w) => w.store(256, process.hrtime.bigint() + 10n ** 10n),
    short: (w) => fs.ftruncateSync(w.page, 4000),
    link: (w) => (fs.renameSync(w.pagePath, `${w.pagePath}x`), fs.symlinkSync(`${w.pagePath}x`, w.pagePath)),
    folder: (w) => (fs.unlinkSync(w.pagePath), fs.mkdirSync(w.pagePath)),
    "without a lock": () => fs.writeFileSync(system.locks, ""),
  };
  if (process.getuid() === 0) changes.owner = (w) => fs.fchownSync(w.page, 12345, 12345);
  const here = place(t);
  for (const [name, change] of Object.entries(changes)) {
    const writer = here.writer({ beats: false });
    change(writer);
    assert.equal(await followsPage(here, writer), name.startsWith("right"), name);
    writer.die();
    here.clear();
  }
});

test("an old page is followed once it moves, and a dead one is not", async (t) => {
  const here = place(t);
  const writer = here.writer({ beats: false });
  writer.store(256, 5);
  const tailer = await here.tail();
  assert.equal(await tailer.tryNext(), null);
  writer.store(256, 6);
  await rejects(tailer.nextTimeout(500), TimedOut); // It is looked up meanwhile.
  writer.write(logBytes(["ahead"]).subarray(8), writer.end);
  writer.write(u64(1), 0);
  assert.equal(await tailer.tryNext(), null);
  writer.die();
  const began = performance.now();
  assert.equal(String((await tailer.nextTimeout(LIMIT)).payload), "ahead");
  assert.ok(performance.now() - began < 1500); // The lock is free: the page is not given two seconds.
});

test("falls back to the count behind a page that stands still", async (t) => {
  const here = place(t);
  const first = here.writer({ beats: false });
  const tailer = await here.tail();
  first.append("a"); // The page has moved since it was first seen.
  await tailer.next();
  first.die();
  const second = here.writer({ page: false });
  second.append("b");
  assert.equal(String((await tailer.nextTimeout(LIMIT)).payload), "b");
  await rejects(tailer.nextTimeout(700), TimedOut); // Names are looked up meanwhile.
  second.append("c");
  const began = performance.now();
  assert.equal(String((await tailer.nextTimeout(LIMIT)).payload), "c");
  assert.ok(performance.now() - began < 1500); // It has not begun to follow that page again.
});

test("a page that was given up has to move", async (t) => {
  const here = place(t);
  const first = here.writer({ beats: false });
  const log = await Log.open(here.path);
  here.later(() => log.close());
  const progress = new Progress(log, here.control);
  here.later(() => progress.close());
  const follows = async () => {
    for (const began = performance.now(); !(await progress.lookUp()); await sleep(10)) assert.ok(performance.now() - began < LIMIT);
    return progress.followsPage();
  };
  assert.ok(await follows());
  fs.writeFileSync(here.locks, "");
  assert.ok(!(await follows()));
  here.writer({ page: false }); // Holds the lock, while the heartbeat of the dead one is still young.
  assert.ok(!(await follows()));
  first.store(256, process.hrtime.bigint());
  assert.ok(await follows());
});

test("an end beyond the file takes no memory", async (t) => {
  const here = place(t);
  const writer = here.writer();
  const tailer = await here.tail();
  writer.write(u64(2 ** 29), 8);
  writer.store(384, 16 + 2 ** 29);
  const { allocUnsafeSlow } = Buffer;
  t.after(() => (Buffer.allocUnsafeSlow = allocUnsafeSlow));
  let most = 0;
  Buffer.allocUnsafeSlow = (size) => {
    most = Math.max(most, size);
    return allocUnsafeSlow(size);
  };
  await rejects(tailer.nextTimeout(LIMIT), Damaged, { position: 8, sequence: 0 });
  assert.ok(most < 1 << 20, `${most} bytes`);
});

test("ends and last are those of the page", async (t) => {
  const here = place(t);
  const writer = here.writer();
  writer.append("a", "b", "c");
  assert.ok(await followsPage(here, writer)); // The count in the log is one ahead.
  const reader = await here.open();
  assert.equal(await reader.count(), 3);
  assert.equal((await here.tail(Start.end())).sequence, 3);
  assert.equal(String((await (await here.tail(Start.last(1))).next()).payload), "c");
  assert.equal(await reader.get(3), null);
});

test("an end in the midst of a record is damage", async (t) => {
  const here = place(t);
  const writer = here.writer();
  writer.append("abc");
  const tailer = await here.tail();
  await tailer.next();
  writer.write(logBytes(["x".repeat(10)]).subarray(8), writer.end);
  for (const more of [17, 5]) {
    writer.store(384, writer.end + more);
    await rejects(tailer.nextTimeout(LIMIT), Damaged, { position: 19, sequence: 1 });
  }
});

test("an end that is never read twice alike is followed as far as it is known", async (t) => {
  const here = place(t);
  const writer = here.writer();
  writer.append(...Array(95).fill(""));
  const tailer = await here.tail(); // At 0x300, when it has read these.
  assert.equal((await all(tailer)).length, 95);
  const behind = await here.tail(Start.sequence(99));
  writer.append("", "", "x".repeat(50), "y".repeat(300), "z"); // The ends of x and y are at 0x34a and 0x47e.
  const { readSync } = fs;
  t.after(() => (fs.readSync = readSync));
  let known = 0x340;
  let reads = 0;
  fs.readSync = (fd, bytes, at, length, position) => {
    const got = readSync(fd, bytes, at, length, position);
    if (position === 384) u64(known + (reads++ % 9)).copy(bytes);
    return got;
  };
  assert.equal(await tailer.tryNext(), null);
  assert.equal(await behind.tryNext(), null);
  known = 0x475; // What is known is 0x400, in the midst of y.
  assert.deepEqual((await all(tailer)).map(({ sequence }) => sequence), [95, 96, 97]);
  for (const each of [tailer, behind]) await rejects(each.nextTimeout(50), TimedOut);
  fs.readSync = readSync;
  assert.deepEqual((await all(tailer)).map(({ sequence }) => sequence), [98, 99]);
  assert.deepEqual((await all(behind)).map(({ sequence }) => sequence), [99]);
});

test("a removed log", async (t) => {
  for (const options of [{ page: true }, { page: false }]) {
    const here = place(t);
    const writer = here.writer(options);
    const tailer = await here.tail();
    writer.write(logBytes(["left"]).subarray(8), 8);
    writer.write(u64(1), 0);
    fs.renameSync(here.path, `${here.path}.away`);
    if (!options.page) fs.writeFileSync(here.path, logBytes(["another"]));
    assert.equal(String((await tailer.nextTimeout(LIMIT)).payload), "left");
    for (let n = 0; n < 2; n++) await rejects(tailer.nextTimeout(LIMIT), Replaced, { path: here.path });
  }
});

test("writers end and begin again", async (t) => {
  const here = place(t);
  let tailer;
  for (const [n, way] of ["close", "die", "close", "die", "die"].entries()) {
    const writer = here.writer();
    tailer ??= await here.tail();
    const waiting = tailer.next();
    writer.append(`${n}`);
    const record = await waiting;
    assert.deepEqual([record.sequence, record.position, String(record.payload)], [n, writer.end - 9, `${n}`]);
    writer[way]();
  }
});

test("a superseded page is left, and the new one followed", async (t) => {
  const here = place(t);
  const writer = here.writer();
  const tailer = await here.tail();
  const old = writer.page;
  const again = fs.readFileSync(writer.pagePath);
  again.writeBigUInt64LE(77n, 80);
  writer.page = fs.openSync(`${writer.pagePath}.new`, "w+");
  fs.writeSync(writer.page, again, 0, 4096, 0);
  fs.renameSync(`${writer.pagePath}.new`, writer.pagePath);
  fs.writeSync(old, u64(4), 0, 8, 128);
  fs.closeSync(old);
  const waiting = tailer.nextTimeout(LIMIT);
  writer.append("x");
  assert.equal(String((await waiting).payload), "x");
});

test("states by lock and page", async (t) => {
  const here = place(t);
  const writer = here.writer();
  const reader = await here.open();
  const tailer = await here.tail();
  assert.deepEqual([await reader.writer(), await tailer.writer()], ["alive", "alive"]);
  writer.publish(3);
  assert.equal(await reader.writer(), "failed");
  writer.die();
  assert.equal(await reader.writer(), "failed");
  // The page of the failed one does not move: another holds the lock.
  const page = fs.openSync(writer.pagePath, "r+");
  fs.writeSync(page, u64(1), 0, 8, 256);
  const second = here.writer({ page: false });
  assert.equal(await (await here.open()).writer(), "alive");
  second.die();
  fs.writeSync(page, u64(2), 0, 8, 128);
  assert.equal(await reader.writer(), "closed");
  fs.writeSync(page, u64(1), 0, 8, 128);
  assert.deepEqual([await reader.writer(), await tailer.writer()], ["gone", "gone"]);
  fs.closeSync(page);
});

test("states by the file", async (t) => {
  const here = place(t);
  const logs = [
    [logBytes(["a"]), "closed"],
    [logBytes(["a"], { tail: Buffer.alloc(9) }), "gone"],
    [Buffer.alloc(0), "closed"],
    [u64(0), "closed"],
    [u64(0, 0), "gone"],
    [logBytes(["", u64(0)], { count: 3, tail: u64(2n ** 63n) }), "gone"],
  ];
  for (const [log, state] of logs) {
    here.write(log);
    const reader = await here.open();
    assert.equal(await reader.writer(), state);
  }
});

test("gone has to be found three times", async (t) => {
  const here = place(t);
  here.write(logBytes(["a"], { tail: Buffer.alloc(9) }));
  const reader = await here.open();
  const { readSync } = fs;
  const { dev, ino } = fs.statSync(here.path, { bigint: true });
  let looks = 0;
  t.after(() => (fs.readSync = readSync));
  // The only thing that is read synchronously here is the table.
  fs.readSync = (fd, bytes, at, length, position) => {
    if (position === 0 && ++looks === 3) fs.writeFileSync(here.locks, `9: ${lockLine(dev, ino)}\n`);
    return readSync(fd, bytes, at, length, position);
  };
  assert.equal(await reader.writer(), "alive");
});

test("the table of locks", async (t) => {
  const here = place(t);
  here.write(u64(0));
  const log = await Log.open(here.path);
  here.later(() => log.close());
  const { dev, ino } = fs.statSync(here.path, { bigint: true });
  const line = lockLine(dev, ino);
  const held = (text) => (fs.writeFileSync(system.locks, text), writerLockIsHeld(log));
  assert.ok(held(`1: ${line}\n`));
  assert.ok(held(`1: FLOCK  ADVISORY  WRITE 77 00:2a:1 0 EOF\n17: ${line}\n`));
  assert.ok(!held(`1: -> ${line}\n`)); // One that waits.
  assert.ok(!held(`1: ${line.replace("WRITE", "READ ")}\n`));
  assert.ok(!held(`1: ${line.replace("OFDLCK", "POSIX ")}\n`));
  assert.ok(!held(`1: ${line.replaceAll("9223372036854775806", "0")}\n`));
  assert.ok(!held(`1: ${lockLine(dev, ino + 1n)}\n`));
  assert.ok(!held(`1: ${lockLine(dev ^ 0x100n, ino)}\n`));
  assert.ok(!held("garbage\n\n"));
  // A line that has the inode and the byte, but is another's, beside one that is not for this byte, or not for this log.
  const posix = `1: ${line.replace("OFDLCK", "POSIX ")}\n`;
  assert.ok(!held(`${posix}2: ${line.replaceAll("9223372036854775806", "0")}\n`));
  assert.ok(!held(`${posix}2: ${lockLine(dev, ino + 1n)}\n`));
  // A number that is not that of any mounted file system, as that of a btrfs subvolume, is told otherwise by the table.
  log.device = 0x33n;
  const { mounts } = system;
  t.after(() => (system.mounts = mounts));
  system.mounts = `${here.directory}/mounts`;
  fs.writeFileSync(system.mounts, "22 1 0:44 / / rw - btrfs x rw\n");
  assert.ok(held(`1: ${lockLine(0x2cn, ino)}\n`));
  fs.writeFileSync(system.mounts, "22 1 0:51 / / rw - tmpfs x rw\n");
  assert.ok(!held(`1: ${lockLine(0x2cn, ino)}\n`));
  system.locks = `${here.directory}/none`;
  assert.ok(!writerLockIsHeld(log));
});

const LOCKER = `
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.fcntl(fd, 37, struct.pack("hhqqi", 1, 0, 2**63 - 2, 1, 0))
print("held", flush=True)
sys.stdin.read()
`;

test("a real lock of a process that is killed", { skip: spawnSync("python3", ["--version"]).status !== 0 && "python3 is missing" }, async (t) => {
  const here = place(t);
  system.locks = "/proc/locks";
  here.write(logBytes(["a"], { tail: Buffer.alloc(9) }));
  const reader = await here.open();
  assert.equal(await reader.writer(), "gone");
  const child = spawn("python3", ["-c", LOCKER, here.path]);
  here.later(() => child.kill("SIGKILL"));
  await new Promise((done) => child.stdout.once("data", done));
  assert.equal(await reader.writer(), "alive");
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGKILL");
  await gone;
  assert.equal(await reader.writer(), "gone");
});

test("a writer at full speed, and two followers", async (t) => {
  const here = place(t);
  const writer = here.writer();
  const count = 3000;
  const one = await here.tail();
  const many = await here.tail(Start.sequence(500));
  const payloads = Array.from({ length: count }, (_, n) => `${n}`.repeat(n % 90));
  const singly = (async () => {
    const got = [];
    while (got.length < count) got.push(String((await one.nextTimeout(LIMIT)).payload));
    return got;
  })();
  const inBatches = (async () => {
    const got = [];
    while (got.length < count - 500) got.push(...[...(await many.nextBatch(1000, LIMIT))].map(String));
    return got;
  })();
  for (const [n, payload] of payloads.entries()) {
    writer.append(payload);
    if (n % 10 === 0) await new Promise((done) => setImmediate(done));
  }
  assert.deepEqual(await singly, payloads);
  assert.deepEqual(await inBatches, payloads.slice(500));
});
