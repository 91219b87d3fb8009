// bench LOG: reads a log to its end, in each way, and the file with plain reads. A JSON line for each, the best of three runs.
// `bytes` are those of the file that were read, `records` is 0 for the plain read.

import fs from "node:fs";
import { Reader } from "../lib/immuta.js";

async function tailed(path, work) {
  const reader = await Reader.open(path);
  const tailer = await reader.tail();
  await work(tailer, await reader.count());
  const { sequence, position } = tailer;
  await tailer.close();
  await reader.close();
  return [sequence, position];
}

const ways = {
  next: (path) =>
    tailed(path, async (tailer, count) => {
      for (let n = 0; n < count; n++) await tailer.next();
    }),
  iterator: (path) =>
    tailed(path, async (tailer, count) => {
      if (count === 0) return;
      for await (const record of tailer) if (record.sequence === count - 1) break;
    }),
  next_batch: (path) =>
    tailed(path, async (tailer, count) => {
      while (tailer.sequence < count) await tailer.nextBatch();
    }),
  read: async (path) => {
    const fd = fs.openSync(path);
    const piece = Buffer.allocUnsafeSlow(1 << 20);
    let size = 0;
    for (let got; (got = fs.readSync(fd, piece, 0, piece.length, size)) > 0; ) size += got;
    fs.closeSync(fd);
    return [0, size];
  },
};

if (process.argv.length !== 3) {
  console.error("usage: bench LOG");
  process.exit(2);
}
for (const [way, work] of Object.entries(ways)) {
  let best = Infinity;
  let records, bytes;
  for (let run = 0; run < 3; run++) {
    const began = performance.now();
    [records, bytes] = await work(process.argv[2]);
    best = Math.min(best, performance.now() - began);
  }
  console.log(JSON.stringify({ language: "node", way, records, bytes, seconds: Number((best / 1000).toFixed(4)) }));
}
