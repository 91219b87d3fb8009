// How far a log may be read, who writes it, and how long to wait: by the control page where it may be followed, else by the log.
//
// Node has no mapping, no futex and no fcntl. So the page is read by read(2), each number until it comes twice alike; the
// writer's lock is looked for in /proc/locks; and waiting is looking again. The page and /proc are memory: they are read
// synchronously, in microseconds, which costs the event loop less than a thread does.
//
// Order: each read is a system call of its own, made after the one before it has returned. The kernel takes a reference to the
// page that it copies from by an atomic operation, so that what is read after `end` is not older than it.

import fs from "node:fs";
import { join, resolve } from "node:path";
import { atLeast, number } from "./log.js";

const PAGE = 4096;
const HEARTBEAT = 256;
const PUBLISHED = 384;
const COMMIT = 392;
const SLOTS = 512;
const STATE = 128;
const CLOSED = 2;
const FAILED = 3;
const SUPERSEDED = 4;
const YOUNG = 2000; // Milliseconds for which a heartbeat, or an end that does not move, is believed.
const LOOK_UP = 500; // Milliseconds between two looks at the page's name, the log's name and the writer's lock.
const SHORTEST = 1; // Milliseconds; timers know no less.
const LONGEST = 20;
const IDLE = 40; // Instead, where nothing came for so long:
const QUIET = 1000;
const WRITER_BYTE = "9223372036854775806";
const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/** What the tests put others in place of. */
export const system = { locks: "/proc/locks", mounts: "/proc/self/mountinfo", bootId: "/proc/sys/kernel/random/boot_id" };

const now = () => performance.now();

/** Whether /proc/locks has a writer's lock on the log: the byte and the inode are told, the device where it has a number of its own. */
export function writerLockIsHeld(log) {
  const table = lockTable();
  const byte = ` ${WRITER_BYTE} ${WRITER_BYTE}`;
  if (!table.includes(`:${log.inode}${byte}`)) return false; // Mostly that is all.
  const major = ((log.device >> 8n) & 0xfffn) | ((log.device >> 32n) & ~0xfffn);
  const minor = (log.device & 0xffn) | ((log.device >> 12n) & ~0xffn);
  for (const line of table.split("\n")) {
    const match = /^\d+: OFDLCK +\S+ +WRITE +\S+ ([0-9a-f]+):([0-9a-f]+):(\d+)( \d+ \d+)$/.exec(line);
    if (match === null || match[4] !== byte || BigInt(match[3]) !== log.inode) continue;
    const [theirMajor, theirMinor] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    if (theirMajor !== major) continue;
    if (theirMinor === minor || (major === 0n && !isMounted(minor))) return true;
  }
  return false;
}

const open = { path: "", fd: -1, buffer: Buffer.alloc(1 << 16) };

/** The kernel's table of locks, or nothing where it is not to be had: then the page is not followed, but the count. */
function lockTable() {
  try {
    if (open.path !== system.locks) {
      if (open.fd >= 0) fs.closeSync(open.fd);
      open.fd = -1;
      open.fd = fs.openSync(system.locks, O_RDONLY); // For the life of the process: it is read twice a second.
      open.path = system.locks;
    }
    let text = "";
    for (let got, at = 0; (got = fs.readSync(open.fd, open.buffer, 0, open.buffer.length, at)) > 0; at += got) text += open.buffer.latin1Slice(0, got);
    return text;
  } catch {
    open.path = "";
    return "";
  }
}

/**
 * Whether a device without a number of its own (0:minor) is one that is mounted. Those of btrfs subvolumes are not: stat(2) tells
 * them, and the table of locks the one of the whole file system.
 */
function isMounted(minor) {
  try {
    return fs.readFileSync(system.mounts, "latin1").includes(` 0:${minor} `);
  } catch {
    return true;
  }
}

function bootId() {
  try {
    const digits = fs.readFileSync(system.bootId, "latin1").trim().replaceAll("-", "");
    return [BigInt(`0x${digits.slice(0, 16)}`), BigInt(`0x${digits.slice(16, 32)}`)];
  } catch {
    return null;
  }
}

/** A control page that is open. */
class Page {
  #bytes = Buffer.alloc(8);
  #again = Buffer.alloc(8);
  #end = 0;
  #seen = Buffer.alloc(16); // `end` and `commit`, as they were read last.
  #look = Buffer.alloc(16);
  #wide = Buffer.alloc(PUBLISHED + 8 - HEARTBEAT);

  constructor(fd, status, epoch) {
    this.fd = fd;
    this.status = status;
    this.epoch = epoch;
    this.users = 0;
    this.firstSeen = this.motion();
    this.givenUp = false;
  }

  /** All of its values have one byte: it is always whole. */
  state() {
    fs.readSync(this.fd, this.#bytes, 0, 8, STATE);
    return number(this.#bytes);
  }

  /** {end, exact}: the log may be read below `end`; more may be published where that is not exact. */
  end() {
    fs.readSync(this.fd, this.#seen, 0, 16, PUBLISHED);
    this.#seen.copy(this.#bytes);
    for (let tries = 0; tries < 8; tries++) {
      fs.readSync(this.fd, this.#again, 0, 8, PUBLISHED);
      if (this.#bytes.equals(this.#again)) return { end: (this.#end = number(this.#again)), exact: true };
      this.#end = Math.max(this.#end, atLeast(this.#bytes, this.#again));
      this.#bytes.set(this.#again);
    }
    return { end: this.#end, exact: false };
  }

  /** Whether there may be news since `end()`: of records, or of the writer's state. For polling: little more than the one call. */
  hasMoved() {
    fs.readSync(this.fd, this.#look, 0, 16, PUBLISHED);
    return !this.#look.equals(this.#seen);
  }

  /** What moves while a writer lives. */
  motion() {
    return this.#beat().motion;
  }

  /**
   * Whether its heartbeat is young, or has moved since it was first seen: clocks differ between time namespaces.
   *
   * One that was given up has to move: a writer may have been killed a moment ago, and its heartbeat still be young.
   */
  isLive() {
    const { heartbeat, motion } = this.#beat();
    if (motion !== this.firstSeen) return true;
    if (this.givenUp) return false;
    const age = Number(process.hrtime.bigint()) / 1e6 - heartbeat / 1e6;
    return age >= 0 && age < YOUNG;
  }

  #beat() {
    // One call for both. If a number is not whole, it has moved.
    fs.readSync(this.fd, this.#wide, 0, this.#wide.length, HEARTBEAT);
    const heartbeat = number(this.#wide);
    return { heartbeat, motion: `${heartbeat} ${number(this.#wide, PUBLISHED - HEARTBEAT)}` };
  }

  /** [count, end] of one event, or null beside a writer that is too fast. */
  event() {
    const all = Buffer.alloc(SLOTS + 32 * 32 - COMMIT);
    for (let tries = 0; tries < 100; tries++) {
      fs.readSync(this.fd, all, 0, all.length, COMMIT);
      fs.readSync(this.fd, this.#again, 0, 8, COMMIT);
      const commit = all.readBigUInt64LE(0);
      // A slot is stored into again 32 events later: until then it is whole.
      const moved = this.#again.readBigUInt64LE() - commit;
      if (moved >= 0n && moved < 31n) {
        const slot = SLOTS - COMMIT + Number(commit % 32n) * 32;
        return [number(all, slot + 8), number(all, slot + 16)];
      }
    }
    return null;
  }

  isOver() {
    const state = this.state();
    return state === CLOSED || state === SUPERSEDED;
  }

  keep() {
    this.users++;
    return this;
  }

  drop() {
    if (--this.users === 0) fs.closeSync(this.fd);
  }
}

/** Whether nothing was done to a file between two looks at it, but for stores into a mapping. */
const isSame = (a, b) => a.ino === b.ino && a.ctimeNs === b.ctimeNs && a.size === b.size;

/** What one reader or tailer knows of its log's growth. */
export class Progress {
  #path;
  #page = null; // The one that is followed.
  #known = null; // The one that had the name when it was last looked up.
  #nextLook = 0;
  #moved = "";
  #movedAt = 0;
  #delay = SHORTEST;
  #newsAt = now();
  count = 0; // In the log, when it was last looked up.
  replaced = false;

  constructor(log, controlDir) {
    this.log = log;
    const directory = controlDir || process.env.IMMUTA_CONTROL_DIR || "/dev/shm";
    this.#path = join(resolve(directory), `immuta-${log.device}-${log.inode}`);
  }

  close() {
    this.#follow(null);
    this.#know(null);
  }

  followsPage() {
    return this.#page !== null;
  }

  /** {end, exact} by the page, or {count} by the log. What is read after this call is whole below it. */
  async published() {
    return this.#page !== null ? this.#page.end() : { count: await this.log.count() };
  }

  /** [count, end], the latter undefined where there is no page to tell it. */
  async event() {
    await this.lookUp();
    return this.#page?.event() ?? [await this.log.count(), undefined];
  }

  /** Something came: begin again with short waits. */
  news() {
    this.#delay = SHORTEST;
    this.#newsAt = now();
  }

  /**
   * Calls `done` once there may be news, after `limit` milliseconds, when it is time for lookUp(), or when what it returns is called.
   *
   * Between, it looks from time to time, and keeps each look short: most of what an idle follower costs is here.
   */
  watch(limit, done) {
    const time = now();
    const until = Math.min(time + limit, Math.max(this.#lookFrom(), time + SHORTEST));
    const source = this.#page ?? this.log;
    let timer;
    let span = 0; // Of the timer.
    const end = () => {
      clearTimeout(timer);
      done();
    };
    const rest = () => {
      const time = now();
      const left = until - time;
      if (left <= 0) return end();
      const longest = time - this.#newsAt < QUIET ? LONGEST : IDLE;
      if (span === longest && left > longest) return timer.refresh(); // Cheaper than a new one.
      span = Math.min(left, this.#delay);
      timer = setTimeout(look, span);
      this.#delay = Math.min(this.#delay * 2, longest);
    };
    const look = () => {
      try {
        if (!source.hasMoved()) return rest();
      } catch {
        // Whoever waits will meet it.
      }
      end();
    };
    rest();
    return end;
  }

  /** When lookUp() looks again: sooner behind a page that is over, which may have its name for a while. */
  #lookFrom() {
    return this.#page?.isOver() ? this.#nextLook - LOOK_UP + LONGEST : this.#nextLook;
  }

  /** Twice a second, or when the page says that its time is over, looks at names and lock. True where it looked. */
  async lookUp() {
    const time = now();
    const page = this.#page;
    if (time < this.#nextLook && time < this.#lookFrom()) return false;
    this.#nextLook = time + LOOK_UP;
    const hasItsName = this.log.hasItsName();
    const held = writerLockIsHeld(this.log);
    const named = await this.#named();
    this.count = this.log.hasMoved() ? await this.log.count() : this.log.lastRead();
    if (named !== null && named !== page && held && !named.isOver() && named.isLive()) {
      this.#follow(named);
      this.#moved = named.motion();
      this.#movedAt = time;
    } else if (page !== null) {
      const motion = page.motion();
      if (motion !== this.#moved) {
        this.#moved = motion;
        this.#movedAt = time;
      }
      if (!held || (time - this.#movedAt >= YOUNG && !((page.event()?.[0] ?? -1) >= this.count))) {
        page.firstSeen = motion;
        page.givenUp = true;
        this.#follow(null);
      }
    }
    this.replaced = !hasItsName;
    if (this.replaced) this.#follow(null); // The count knows of all that there is.
    return true;
  }

  /** Who is writing. Gone is what is found three times: a writer may begin and end between two looks. */
  async writer() {
    for (let look = 0; look < 3; look++) {
      const held = writerLockIsHeld(this.log);
      const page = await this.#named();
      const state = page?.state() ?? 0;
      if (held) return state === FAILED && page.isLive() ? "failed" : "alive";
      if (state === FAILED) return "failed";
      if (state === CLOSED || (page === null && (await this.log.endsExactly()))) return "closed";
    }
    return "gone";
  }

  #follow(page) {
    page?.keep();
    this.#page?.drop();
    this.#page = page;
  }

  #know(page) {
    page?.keep();
    this.#known?.drop();
    this.#known = page;
    return page;
  }

  /** The page that has the name, if it may be believed. */
  async #named() {
    let fd = -1;
    try {
      const known = this.#known;
      if (known !== null && isSame(known.status, fs.lstatSync(this.#path, { bigint: true }))) return known;
      fd = fs.openSync(this.#path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      const status = fs.fstatSync(fd, { bigint: true });
      const owned = status.uid === this.log.owner || status.uid === 0n;
      if (!status.isFile() || status.size < PAGE || !owned) return this.#know(null);
      const epoch = Buffer.alloc(8);
      fs.readSync(fd, epoch, 0, 8, 80);
      // An inode number is used again, an epoch is not.
      for (const page of [known, this.#page]) {
        if (page !== null && page.status.ino === status.ino && page.epoch.equals(epoch)) {
          page.status = status;
          return this.#know(page);
        }
      }
      const page = new Page(fd, status, epoch);
      if (!(await this.#believes(page))) return this.#know(null);
      fd = -1; // The page's from now on.
      return this.#know(page);
    } catch (error) {
      if (error.syscall === undefined) throw error;
      return this.#know(null);
    } finally {
      if (fd >= 0) fs.closeSync(fd);
    }
  }

  async #believes(page) {
    const head = Buffer.alloc(64);
    fs.readSync(page.fd, head, 0, 64, 0);
    if (head.toString("latin1", 0, 8) !== "immutaCP") return false;
    fs.readSync(page.fd, head, 0, 64, 0); // The magic is stored last: what is read after it is whole.
    const boot = bootId();
    if (boot === null) return false;
    const { device, inode } = this.log;
    const birth = head.readBigUInt64LE(40) === 0n ? 0n : this.log.birth; // The writer may not have learnt it.
    const fields = [1n, BigInt(PAGE), device, inode, birth, ...boot];
    if (!fields.every((field, at) => head.readBigUInt64LE(8 + at * 8) === field)) return false;
    // The page is stored after the log, so that it was not ahead when it was loaded, before the log.
    const event = page.event();
    const { end } = page.end();
    return event !== null && event[0] <= (await this.log.count()) && Math.max(event[1], end) <= Math.max(await this.log.size(), 8);
  }
}
