// The program `follow`: what it prints, and how it ends.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LIMIT, logBytes, place } from "./support.js";

const FOLLOW = fileURLToPath(new URL("../follow", import.meta.url));

function runs(here) {
  return (...args) => {
    const { status, stdout, stderr } = spawnSync(FOLLOW, args.map(String), { env: here.environment, encoding: "utf8", timeout: LIMIT, maxBuffer: 1 << 26 });
    return { status, stdout, stderr };
  };
}

/** A follower in the background; `line()` is what it printed first, `end` its exit code. */
function start(here, ...args) {
  const child = spawn(FOLLOW, args.map(String), { env: here.environment, timeout: LIMIT });
  here.later(() => child.kill("SIGKILL"));
  const running = { child, stdout: "", stderr: "" };
  child.stderr.on("data", (data) => (running.stderr += data));
  running.first = new Promise((done) => child.stdout.once("data", (data) => done(String(data))));
  child.stdout.on("data", (data) => (running.stdout += data));
  running.end = new Promise((done) => child.once("close", (code) => done(code)));
  return running;
}

test("counts and skips", (t) => {
  const here = place(t);
  const follow = runs(here);
  here.write(logBytes(["123456789", "", "x".repeat(700000), ...Array(5000).fill("123456789")], { tail: Buffer.alloc(1000) }));
  assert.deepEqual(follow(here.path, "--count", 1), { status: 0, stdout: "0 9 cbf43926\n", stderr: "" });
  assert.equal(follow(here.path, "--count", 2).stdout, "0 9 cbf43926\n1 0 00000000\n");
  const lines = (first, end) => Array.from({ length: end - first }, (_, n) => `${first + n} 9 cbf43926\n`).join("");
  assert.deepEqual(follow("--skip", 3, "--count", 5000, here.path), { status: 0, stdout: lines(3, 5003), stderr: "" });
  assert.deepEqual(follow(here.path, "--count", 0), { status: 0, stdout: "", stderr: "" });
});

test("times out", (t) => {
  const here = place(t);
  const follow = runs(here);
  here.write(logBytes(["a", "b"]));
  for (const [args, first] of [[[], 0], [["--count", 3], 0], [["--skip", 1], 1], [["--skip", 5, "--count", 1], 2], [["--skip", 2n ** 64n - 1n], 2]]) {
    const { status, stdout, stderr } = follow(here.path, ...args, "--timeout", "0.1");
    assert.deepEqual([status, stdout.split("\n").length - 1], [6, 2 - first]);
    assert.ok(stderr.includes(here.path));
  }
});

test("damage", (t) => {
  const here = place(t);
  const follow = runs(here);
  here.write(logBytes(["a", "b", "c".repeat(100)]).subarray(0, -1));
  const { status, stdout, stderr } = follow(here.path);
  assert.deepEqual([status, stdout], [5, "0 1 e8b7be43\n1 1 71beeff9\n"]);
  assert.ok(stderr.includes(`${here.path}: damaged at position 26, record 2: `), stderr);
  assert.equal(follow(here.path, "--count", 2).status, 0);
  here.write(Buffer.alloc(7));
  assert.equal(follow(here.path, "--timeout", 1).status, 5);
});

test("no log, late logs, and logs that go away", async (t) => {
  const here = place(t);
  const follow = runs(here);
  assert.equal(follow(here.path).status, 3);
  assert.equal(follow(here.path, "--timeout", "0.1").status, 3);
  assert.equal(follow(here.directory).status, 1);
  const late = start(here, here.path, "--timeout", LIMIT / 1000, "--count", 1);
  const writer = here.writer({ page: false });
  writer.append("123456789");
  assert.equal(await late.end, 0);
  assert.equal(late.stdout, "0 9 cbf43926\n");
  const following = start(here, here.path);
  await following.first;
  fs.unlinkSync(here.path);
  assert.equal(await following.end, 3);
});

test("wrong arguments", (t) => {
  const follow = runs(place(t));
  const wrong = [[], ["a", "b"], ["a", "--skip"], ["a", "--skip", "-1"], ["a", "--count", "x"], ["a", "--count", "1e99"], ["a", "--skip", `${2n ** 64n}`], ["a", "--count", ""]];
  for (const args of [...wrong, ...["nan", "inf", "-1", "x", ""].map((seconds) => ["a", "--timeout", seconds]), ["a", "--cou", "1"]]) {
    const { status, stdout, stderr } = follow(...args);
    assert.deepEqual([status, stdout], [2, ""], args.join(" "));
    assert.match(stderr, /usage/);
  }
});

test("prints before it waits, and ends on signals", async (t) => {
  const here = place(t);
  here.write(logBytes(["123456789"]));
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]]) {
    const following = start(here, here.path);
    assert.equal(await following.first, "0 9 cbf43926\n");
    following.child.kill(signal);
    assert.equal(await following.end, code);
    assert.equal(following.stderr, "");
  }
});

test("a closed stdout ends it quietly, and one that is not read does not keep it from a signal", async (t) => {
  const here = place(t);
  here.write(logBytes(Array(200000).fill("x".repeat(20))));
  const closed = start(here, here.path);
  await closed.first;
  closed.child.stdout.destroy();
  assert.equal(await closed.end, 0);
  assert.equal(closed.stderr, "");
  const stuck = spawn(FOLLOW, [here.path], { env: here.environment, timeout: LIMIT, killSignal: "SIGKILL" });
  await new Promise((done) => stuck.stdout.once("readable", done));
  const ended = new Promise((done) => stuck.once("exit", done));
  stuck.kill("SIGTERM");
  assert.equal(await ended, 143);
  stuck.stdout.destroy();
});

test("without a stdout that takes it", (t) => {
  const here = place(t);
  here.write(logBytes(["a"]));
  for (const redirect of [">&-", ">/dev/full"]) {
    const args = ["-c", `exec "$0" "$@" ${redirect}`, FOLLOW, here.path, "--count", "1"];
    const { status, stderr } = spawnSync("sh", args, { env: here.environment, encoding: "utf8", timeout: LIMIT });
    assert.equal(status, 1);
    assert.match(stderr, /^follow: .*\n$/);
  }
});

test("a live writer that ends and begins again", async (t) => {
  const here = place(t);
  let writer = here.writer();
  const following = start(here, here.path, "--count", 3000, "--timeout", LIMIT / 1000);
  for (let n = 0; n < 3000; n++) {
    writer.append("123456789");
    if (n % 100 === 0) await new Promise((done) => setImmediate(done));
    if (n % 700 === 699) {
      n % 1400 === 699 ? writer.close() : writer.die();
      writer = here.writer();
    }
  }
  assert.equal(await following.end, 0);
  assert.equal(following.stdout, Array.from({ length: 3000 }, (_, n) => `${n} 9 cbf43926\n`).join(""));
});
