"""What is in a log: sizes, ends, damage, places."""

import os
import random
import socket
import struct
import threading
import tracemalloc
from unittest import mock

import immuta
from immuta import Reader, Start, _index, _log

from .support import Case, Writer, block, crc32c, header, log_bytes, piece


class Reading(Case):
    def open(self, **options):
        reader = Reader.open(self.path, control_dir=self.control, **options)
        self.addCleanup(reader.close)
        return reader

    def all(self, **options):
        tailer = self.open(**options).tail()
        return list(iter(tailer.try_next, None))

    def damage(self, position, sequence, before):
        """The log is damaged there, after `before` records."""
        with self.assertRaises(immuta.Damaged) as caught:
            tailer = self.open().tail()
            for n in range(before):
                self.assertEqual(tailer.try_next().sequence, n)
            tailer.try_next()
        error = caught.exception
        self.assertEqual((error.position, error.sequence, error.path), (position, sequence, self.path))
        record = "" if sequence is None else f", record {sequence}"
        self.assertTrue(str(error).startswith(f"{self.path}: damaged at position {position}{record}: "), str(error))

    def test_records_of_all_sizes(self):
        sizes = [0, 1, 7, 8, 9, 4079, 4080, 4081, _log.CHUNK - 17, _log.CHUNK - 8, _log.CHUNK, 3 * _log.CHUNK + 1, 0, 0, 5]
        payloads = [random.Random(n).randbytes(n) for n in sizes] + [b"x" * (n % 97) for n in range(20000)]
        self.write(log_bytes(payloads, tail=bytes(100000)))
        records = self.all()
        self.assertEqual([r.payload for r in records], payloads)
        position = 8
        for n, record in enumerate(records):
            self.assertEqual((record.sequence, record.position), (n, position))
            position += 8 + len(payloads[n])
        self.assertEqual(self.open().count(), len(payloads))

    def test_batches_and_single_records_may_be_mixed(self):
        payloads = [b"%d" % n * (n % 7) for n in range(30000)]
        self.write(log_bytes(payloads))
        tailer, got, chance = self.open().tail(), [], random.Random(1)
        while len(got) < len(payloads):
            self.assertEqual(tailer.sequence, len(got))
            position = tailer.position
            if chance.random() < 0.5:
                record = tailer.next()
                self.assertEqual((record.sequence, record.position), (len(got), position))
                got.append(record.payload)
            else:
                limit = chance.randrange(1, 600)
                batch = tailer.next_batch(limit)
                self.assertEqual((batch.sequence, batch.position), (len(got), position))
                self.assertTrue(1 <= len(batch) <= limit)
                got += [bytes(view) for view in batch]
        self.assertEqual(got, payloads)
        self.assertEqual(tailer.position, os.path.getsize(self.path))
        with self.assertRaises(immuta.TimedOut):
            tailer.next_batch(timeout=0)

    def test_memoryviews_stay(self):
        payloads = [b"%06d" % n for n in range(100000)]
        self.write(log_bytes(payloads))
        tailer = self.open().tail()
        kept = []
        while len(kept) < len(payloads):
            kept += tailer.next_batch(5000)
        tailer.close()
        self.assertEqual([bytes(view) for view in kept], payloads)
        self.assertTrue(all(view.readonly for view in kept))

    def test_what_is_behind_the_count_is_nothing(self):
        for tail in (b"", bytes(50), b"\xff" * 50, log_bytes([b"uncounted"])[8:], struct.pack("<Q", 2**64 - 1), b"\1\0\0"):
            self.write(log_bytes([b"one", b""], tail=tail))
            self.assertEqual([r.payload for r in self.all()], [b"one", b""])

    def test_logs_without_records(self):
        for data in (b"", bytes(8), bytes(4096)):
            self.write(data)
            self.assertEqual((self.open().count(), self.all()), (0, []))

    def test_counts_that_cannot_be(self):
        for data in (b"\0", bytes(7), log_bytes([b"a"], count=3), log_bytes([], count=1), log_bytes([b"abc"], count=2**64 - 1)):
            self.write(data)
            self.damage(0, None, 0)

    def test_sizes_that_lie(self):
        for size in (2**64 - 1, 2**64 - 8, 2**63, 2**63 - 1, 2**40, 43):
            self.write(log_bytes([b"first", struct.pack("<Q", 0)], tail=struct.pack("<Q", size) + bytes(42), count=3))
            tracemalloc.start()
            self.damage(8 + 13 + 16, 2, 2)
            self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)
            tracemalloc.stop()

    def test_torn_tails(self):
        whole = log_bytes([b"first", b"x" * 30, b"y" * 300])
        for cut in (1, 299, 300, 307):
            self.write(whole[:-cut])
            self.damage(8 + 13 + 38, 2, 2)
        self.write(log_bytes([b"x" * 300, b"y"])[:-9])
        self.damage(316, 1, 1)

    def test_damage_is_met_by_get_and_by_starts_behind_it(self):
        self.write(log_bytes([b"a", struct.pack("<Q", 0)], tail=struct.pack("<Q", 2**63) + bytes(99), count=4))
        reader = self.open()
        self.assertEqual(reader.get(0), b"a")
        for work in (
            lambda: reader.get(2),
            lambda: reader.get(3),
            lambda: reader.tail(Start.sequence(3)),
            lambda: reader.tail(Start.end()),
        ):
            with self.assertRaises(immuta.Damaged) as caught:
                work()
            self.assertEqual((caught.exception.position, caught.exception.sequence), (33, 2))

    def test_max_record(self):
        self.write(log_bytes([b"a" * 10, b"b" * 11, b"c"]))
        tailer = self.open(max_record=10).tail()
        self.assertEqual(tailer.next().payload, b"a" * 10)
        for _ in range(2):
            with self.assertRaises(immuta.TooLarge) as caught:
                tailer.try_next()
            self.assertEqual((caught.exception.sequence, caught.exception.position), (1, 26))
        with self.assertRaises(immuta.TooLarge):
            self.open(max_record=10).get(1)
        self.assertEqual(len(self.all(max_record=11)), 3)
        self.write(log_bytes([b"", b"", b"x"]))
        tailer = self.open(max_record=0).tail()
        self.assertEqual([tailer.next().payload, tailer.next().payload], [b"", b""])
        self.assertRaises(immuta.TooLarge, tailer.next)

    def test_a_true_size_beyond_max_record_allocates_nothing(self):
        self.write(struct.pack("<QQ", 1, 1 << 32))
        os.truncate(self.path, 16 + (1 << 32))  # Sparse.
        tracemalloc.start()
        self.assertRaises(immuta.TooLarge, self.open().tail().next)
        self.assertRaises(immuta.TooLarge, self.open().get, 0)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)
        tracemalloc.stop()

    def test_what_is_no_log(self):
        with self.assertRaises(immuta.NotFound) as caught:
            self.open()
        self.assertIsInstance(caught.exception, FileNotFoundError)
        self.assertEqual(str(caught.exception), f"{self.path}: no such log")
        end = socket.socket(socket.AF_UNIX)
        self.addCleanup(end.close)
        for make in (os.mkdir, os.mkfifo, end.bind):
            make(self.path)
            self.assertRaises(immuta.NotALog, self.open)
            os.rmdir(self.path) if os.path.isdir(self.path) else os.unlink(self.path)
        self.assertRaises(immuta.NotALog, Reader.open, "/dev/null")
        with self.assertRaises(NotADirectoryError):
            self.write(b"")
            Reader.open(self.path + "/x")

    def test_waits_for_the_log(self):
        with self.assertRaises(immuta.NotFound):
            self.open(wait_for_log=0.05)
        timer = threading.Timer(0.1, lambda: os.rename(self.path + ".ready", self.path))
        self.write(log_bytes([b"here"]), self.path + ".ready")
        timer.start()
        self.addCleanup(timer.join)
        self.assertEqual(self.open(wait_for_log=20).get(0), b"here")

    def test_starts(self):
        payloads = [b"%d" % n for n in range(10)]
        self.write(log_bytes(payloads))
        reader = self.open()
        starts = [
            (None, 0),
            (Start.beginning(), 0),
            (Start.sequence(0), 0),
            (Start.sequence(7), 7),
            (Start.last(3), 7),
            (Start.last(99), 0),
        ]
        for start, first in starts:
            tailer = reader.tail(start)
            self.assertEqual(tailer.sequence, first)
            self.assertEqual(tailer.next(), (first, tailer.position - 9, payloads[first]))
        for start in (Start.end(), Start.last(0), Start.sequence(10), Start.sequence(12)):
            self.assertIsNone(reader.tail(start).try_next())
        self.assertEqual([reader.get(n) for n in (9, 0, 5, 10)], [b"9", b"0", b"5", None])
        self.assertRaises(ValueError, reader.get, -1)
        self.assertRaises(ValueError, Start.last, -1)

    def test_new_records_without_a_page(self):
        writer = self.writer(control=False)
        writer.append(b"old", tail=bytes(10000))
        reader = self.open()
        tailers = [reader.tail(start) for start in (Start.beginning(), Start.end(), Start.sequence(3))]
        tailers[0].next()
        self.assertIsNone(tailers[0].try_next())
        for n in range(1, 50):
            writer.append(b"%d" % n * n, tail=b"\xee" * 1000)
        self.assertEqual(
            [[r.sequence for r in iter(t.try_next, None)] for t in tailers], [[*range(1, 50)], [*range(1, 50)], [*range(3, 50)]]
        )

    def test_a_record_beyond_the_end_is_waited_for_with_its_place(self):
        writer = self.writer(control=False)
        tailer = self.open().tail(Start.sequence(2))
        for n in range(3):
            self.assertEqual((tailer.sequence, tailer.try_next()), (2, None))
            writer.append(b"%d" % n)
        self.assertEqual(tailer.next(), (2, 26, b"2"))

    def test_a_truncated_log_is_damaged(self):
        self.write(log_bytes([b"x" * 1000] * 1000))
        tailer = self.open().tail()
        tailer.next()
        os.truncate(self.path, 500000)  # Its count still says 1000.
        with self.assertRaises(immuta.Damaged) as caught:
            while True:
                tailer.next_timeout(5)
        self.assertEqual(caught.exception.position, tailer.position)
        self.assertLess(tailer.position, 500000)
        self.assertGreater(tailer.sequence, 1)

    def test_after_an_error_in_the_read_nothing_read_before_the_count_is_taken(self):
        writer = self.writer(control=False)
        writer.append(b"first", tail=log_bytes([b"torn"])[8:])
        tailer = self.open().tail()
        tailer.next()
        self.assertIsNone(tailer.try_next())
        writer.append(b"true")
        with mock.patch.object(_log.Log, "read", side_effect=OSError(5, "no")), self.assertRaises(OSError):
            tailer.try_next()
        self.assertEqual(tailer.next().payload, b"true")

    def test_a_count_that_falls_is_damage(self):
        self.write(log_bytes([b"x"] * 10))
        tailer = self.open().tail()
        for _ in range(10):
            tailer.next()
        os.truncate(self.path, 0)
        with self.assertRaises(immuta.Damaged) as caught:
            tailer.next_timeout(5)
        self.assertEqual(caught.exception.position, 0)

    def test_a_count_that_two_reads_never_see_alike_is_loaded(self):
        self.write(log_bytes([b"a", b"b"]))
        log = _log.Log(self.path)
        reads = iter(range(1000))
        log._count_bytes = lambda: next(reads).to_bytes(8, "little")
        self.assertEqual(log.count(), 2)
        self.assertGreater(next(reads), 10)

    def test_closed_readers_say_so(self):
        self.write(log_bytes([b"a"] * 3))
        reader = self.open()
        with reader.tail() as tailer:
            reader.close()
            self.assertEqual(tailer.next().payload, b"a")
        self.assertRaises(ValueError, tailer.next)
        self.assertRaises(ValueError, reader.count)

    def test_descriptors_are_given_back(self):
        self.write(log_bytes([b"a"] * 3))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with Reader.open(self.path, control_dir=self.control) as reader, reader.tail() as tailer:
                tailer.next()
                reader.get(2)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class Index(Case):
    def setUp(self):
        super().setUp()
        self.payloads = [b"%d" % n * (n % 9) for n in range(4000)]
        self.positions = [8]
        for payload in self.payloads:
            self.positions.append(self.positions[-1] + 8 + len(payload))
        self.data = log_bytes(self.payloads)
        self.write(self.data)
        # Pieces of other kinds between the blocks: a flush covers nothing, a writer began.
        self.pieces = [header(self.path)]
        for n in range(0, 4000, 500):
            self.pieces.append(self.block(n, n + 500))
            self.pieces.append(piece(struct.pack("<5QII", n + 500, self.positions[n + 500], 0, 0, 0, 0x101, 0)))
            self.pieces.append(piece(struct.pack("<5QII", n + 500, self.positions[n + 500], 2**63, 2**63, 0, 2, 0)))

    def block(self, first, end):
        return block(self.data, first, self.positions[first], self.positions[end], end - first)

    def lie(self, sequence, records, more=b""):
        """A block from record 3000 to the end and what is behind it, that says it is of others. Its checksum is true."""
        data = self.data + more
        return block(data, sequence, self.positions[3000], len(data), records)

    def index(self, pieces):
        self.write(b"".join(pieces), self.path + ".idx")

    def get(self, sequence, path=None):
        with Reader.open(path or self.path, control_dir=self.control) as reader:
            return reader.get(sequence)

    def break_first_record(self):
        """The log can no longer be walked from its beginning."""
        with open(self.path, "r+b") as file:
            file.seek(8)
            file.write(struct.pack("<Q", 2**62))

    def test_checksum(self):
        self.assertEqual(_index.crc32c(b"123456789"), 0xE3069283)
        for n in range(20):
            data = random.Random(n).randbytes(n)
            self.assertEqual(_index.crc32c(data), crc32c(data))

    def test_finds_what_cannot_be_walked_to(self):
        self.index(self.pieces)
        self.break_first_record()
        for n in (500, 501, 999, 1000, 1499, 1500, 3499, 3999):
            self.assertEqual(self.get(n), self.payloads[n])
        self.assertRaises(immuta.Damaged, self.get, 499)
        with Reader.open(self.path, control_dir=self.control) as reader:
            self.assertEqual(reader.tail(Start.last(1)).next().sequence, 3999)
            self.assertIsNone(reader.tail(Start.end()).try_next())
            self.assertEqual(reader.tail(Start.sequence(2222)).next(), (2222, self.positions[2222], self.payloads[2222]))
        os.symlink(self.path, self.path + ".link")
        self.assertEqual(self.get(3000, self.path + ".link"), self.payloads[3000])
        os.unlink(self.path + ".idx")
        self.assertRaises(immuta.Damaged, self.get, 3000)

    def test_walks_on_behind_the_last_block(self):
        self.index(self.pieces[:7] + [b"torn"])
        self.break_first_record()
        self.assertEqual(self.get(3999), self.payloads[3999])

    def test_pieces_with_wrong_checksums_are_none(self):
        broken = [p if n in (0, 1, 10) else p[:60] + b"\0\0\0\0" for n, p in enumerate(self.pieces)]
        self.index(broken)
        self.break_first_record()
        self.assertEqual(self.get(3999), self.payloads[3999])  # From the block at 1500.
        self.assertRaises(immuta.Damaged, self.get, 1499)

    def test_one_large_record_is_known_by_its_size(self):
        data = log_bytes([b"a"] * 300 + [b"L" * 500000, b"z"])
        self.write(data)
        end = 8 + 300 * 9
        lie = struct.pack("<5QII", 300, end, 500008, 1, 0, 1, 12345)  # Its checksum is not taken.
        self.index([header(self.path), block(data, 0, 8, end, 300), piece(lie)])
        self.break_first_record()
        self.assertEqual((self.get(300), self.get(301)), (b"L" * 500000, b"z"))

    def test_a_block_beyond_the_published_end_is_ignored(self):
        writer = self.writer()
        writer.append(b"last", tail=bytes(800))
        self.data += log_bytes([b"last"])[8:]
        for more, record in ((bytes(800), self.payloads[3100]), (b"", self.payloads[3000])):
            self.index([self.pieces[0], self.lie(3100, 100, more)])
            self.assertEqual(self.get(3100), record)

    def test_an_index_that_is_not_true_is_ignored(self):
        first, entries = self.pieces[0], self.pieces[1:]
        lies = {
            "foreign": [header(self.path, inode=1), *entries],
            "birth": [piece(first[:40] + bytes(8) + first[48:60]), *entries],
            "magic": [piece(b"x" + first[1:60]), *entries],
            "version": [piece(first[:8] + b"\2" + first[9:60]), *entries],
            "header's checksum": [first[:60] + b"abcd", *entries],
            "short": [first[:20]],
            "empty": [],
            "block's checksum": [first, piece(struct.pack("<5QII", 3000, self.positions[3000], 800, 99, 0, 1, 7))],
            "beyond the end": [first, piece(struct.pack("<5QII", 3000, self.positions[3000], 2**63, 9, 0, 1, 7))],
            "more than are counted": [first, self.lie(3500, 1000)],
            "before the first": [first, piece(struct.pack("<5QII", 3000, 0, 8, 1, 0, 1, 7))],
            "huge": [first, piece(struct.pack("<5QII", 3000, 2**64 - 1, 2**64 - 1, 2**64 - 1, 0, 1, 7))],
            "garbage": [first, *[b"\xff" * 64] * 50],
        }
        for name, pieces in lies.items():
            with self.subTest(name):
                self.index(pieces)
                for n in (0, 257, 3000, 3999):
                    self.assertEqual(self.get(n), self.payloads[n])
        os.unlink(self.path + ".idx")
        os.mkfifo(self.path + ".idx")
        self.assertEqual(self.get(3999), self.payloads[3999])


class Batches(Case):
    def test_a_batch_is_seen_whole_across_chunks(self):
        writer = Writer(self.path)
        self.addCleanup(writer.die)
        writer.append(*[b"x" * 1000] * 1000)
        with Reader.open(self.path, control_dir=self.control) as reader:
            tailer, seen = reader.tail(), 0
            while seen < 1000:
                seen += len(tailer.next_batch(10**6))
            self.assertRaises(ValueError, tailer.next_batch, 0)
