// LOG.idx: where records lie. Nothing depends on it; whatever is not right about it, records are found by walking.

import { constants, promises as fs } from "node:fs";

const PIECE = 64;
const BLOCK = 1;
const LONGEST = 16 << 20; // Bytes of a block of many records that are read for its checksum; blocks have 64 KiB or so.
const STEPS = 1024; // Pieces that are looked through for a block: those between blocks tell of flushes and of writers that began.
const TABLE = new Uint32Array(256).map((_, value) => {
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value;
});

/** CRC-32C (Castagnoli). */
export function crc32c(bytes) {
  let crc = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[at]) & 255];
  return (crc ^ 0xffffffff) >>> 0;
}

const number = (piece, at) => piece.readUInt32LE(at + 4) * 0x100000000 + piece.readUInt32LE(at);

/** A piece, if its checksum is right. */
async function piece(file, at) {
  const bytes = Buffer.alloc(PIECE);
  const { bytesRead } = await file.read(bytes, 0, PIECE, at * PIECE);
  return bytesRead === PIECE && crc32c(bytes.subarray(0, 60)) === bytes.readUInt32LE(60) ? bytes : null;
}

/**
 * A record at or before `sequence`, and its position, that the index knows and the log's bytes bear out; or null. `total` records
 * may be read, below `limit`.
 */
export async function find(log, sequence, total, limit) {
  let file;
  try {
    const path = (await fs.realpath(log.absolute)) + ".idx";
    file = await fs.open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    const status = await file.stat();
    if (!status.isFile()) return null;
    const header = await piece(file, 0);
    if (header === null || header.toString("latin1", 0, 8) !== "immutaIX" || number(header, 8) !== 1) return null;
    if (header.readBigUInt64LE(32) !== log.inode || header.readBigUInt64LE(40) !== log.birth) return null; // Another file's.
    const block = await search(file, Math.floor(status.size / PIECE), sequence);
    return block === null ? null : await borneOut(log, block, sequence, total, limit);
  } catch (error) {
    if (error.syscall === undefined) throw error;
    return null;
  } finally {
    await file?.close();
  }
}

/** The last block of records that begins at or before `sequence`. */
async function search(file, count, sequence) {
  let low = 1;
  let high = count; // The entry looked for is before it.
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    let at = middle;
    let entry = null;
    for (; entry === null && at >= Math.max(low, middle - STEPS); at--) entry = await piece(file, at);
    // Pieces that say nothing are in nobody's way.
    if (entry !== null && number(entry, 0) > sequence) high = at + 1;
    else low = middle + 1;
  }
  for (let at = high - 1; at > Math.max(0, high - 1 - STEPS); at--) {
    const entry = await piece(file, at);
    if (entry !== null && entry[40] === BLOCK && number(entry, 24) > 0) return entry;
  }
  return null;
}

async function borneOut(log, block, sequence, total, limit) {
  const [first, position, length, records] = [0, 8, 16, 24].map((at) => number(block, at));
  const end = position + length;
  if (first > sequence || position < 8 || end > limit || first + records > total || records > length / 8) return null;
  if (records === 1) {
    const size = await log.read(position, 8); // It may be large; its size field says enough.
    if (size.length < 8 || number(size, 0) !== length - 8) return null;
  } else if (length > LONGEST || crc32c(await log.read(position, length)) !== block.readUInt32LE(44)) {
    return null;
  }
  return sequence < first + records ? [first, position] : [first + records, end];
}
