"""Waiting for records: by the page and its futex, without them, across writers, and who is writing."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from unittest import mock

import immuta
from immuta import Reader, Start, WriterState, _control, _system

from .support import LIMIT, Case, Waiting, log_bytes, until

PACKAGE = Path(__file__).resolve().parent.parent


class Following(Case):
    def reader(self):
        reader = Reader.open(self.path, control_dir=self.control)
        self.addCleanup(reader.close)
        return reader

    def tail(self, start=None):
        tailer = self.reader().tail(start)
        self.addCleanup(tailer.close)
        self.addCleanup(tailer.stop)
        return tailer

    def follows_page(self, writer):
        """Whether the page is followed: the log's count says more than it."""
        with open(self.path, "r+b") as file:
            file.seek(writer.end)
            file.write(struct.pack("<Q", 0))
            file.seek(0)
            file.write(struct.pack("<Q", writer.count + 1))
        return self.tail(Start.sequence(writer.count)).try_next() is None


class ByPage(Following):
    def test_sleeps_on_the_futex_and_is_woken(self):
        writer = self.writer()
        tailer = self.tail()
        # A sleep that is not woken lasts too long for this test, and there is no other.
        with mock.patch.object(_control, "_SLICE", 4 * LIMIT), mock.patch.object(time, "sleep", side_effect=AssertionError):
            for n in range(20):
                waiting = Waiting(tailer.next)
                self.asleep(writer)
                self.assertFalse(waiting.is_over())
                writer.append(b"%d" % n)
                self.assertEqual(waiting.get().payload, b"%d" % n)

    def test_a_lost_wake_up_costs_a_slice(self):
        writer = self.writer(wakes=False)
        tailer = self.tail()
        waiting = Waiting(tailer.next_batch)
        self.asleep(writer)
        writer.append(b"a", b"b")
        self.assertEqual([bytes(p) for p in waiting.get()], [b"a", b"b"])

    def test_does_not_sleep_where_there_is_news(self):
        writer = self.writer()
        tailer = self.tail()
        self.assertIsNone(tailer.try_next())
        progress = tailer._progress
        with mock.patch.object(_system.Mapping, "futex_wait", side_effect=AssertionError):
            writer.append(b"a")
            progress.wait(8, LIMIT)  # `end` has moved.
            raised = _system.Mapping.raise_to

            def raise_to(mapping, offset, value):
                raised(mapping, offset, value)
                writer.publish()  # `commit` moves between the announcement and the second look.

            with mock.patch.object(_system.Mapping, "raise_to", raise_to):
                progress.wait(writer.end, LIMIT)

    def test_announced_is_never_lowered(self):
        writer = self.writer()
        tailer = self.tail()
        writer.bell[128] = 1000
        with self.assertRaises(immuta.TimedOut):
            tailer.next_timeout(0.1)
        self.assertEqual(writer.bell[128], 1000)

    def test_announced_is_raised_by_many(self):
        writer = self.writer()
        fd = os.open(writer.bell.path, os.O_RDWR)
        bell = _system.Mapping(fd, writable=True)
        os.close(fd)
        workers = [Waiting(lambda n=n: [bell.raise_to(128, 1000 + k * 4 + n) for k in range(5000)]) for n in range(4)]
        for worker in workers:
            worker.get()
        self.assertEqual(writer.bell[128], 1000 + 4999 * 4 + 3)

    def test_looks_where_the_doorbell_cannot_be_used(self):
        for spoil in (lambda bell: bell.__setitem__(16, 5), lambda bell: bell.__setitem__(0, 5), lambda bell: os.unlink(bell.path)):
            writer = self.writer()
            spoil(writer.bell)
            tailer = self.tail(Start.end())
            with mock.patch.object(_system.Mapping, "futex_wait", side_effect=AssertionError):
                waiting = Waiting(tailer.next)
                writer.append(b"x")
                self.assertEqual(waiting.get().payload, b"x")
            self.assertTrue(self.follows_page(writer))
            writer.die()
            shutil.rmtree(self.control)
            os.mkdir(self.control)

    def test_without_atomics_it_looks_from_time_to_time(self):
        writer = self.writer()
        with mock.patch.object(_system, "_atomic", False), mock.patch.object(_system, "CAN_SLEEP", False):
            self.assertTrue(self.follows_page(writer))
        with mock.patch.object(_system, "CAN_LOAD", False):
            self.assertFalse(self.follows_page(writer))
            waiting = Waiting(self.tail(Start.end()).next)
            writer.count, writer.end = writer.count + 1, writer.end + 8
            writer.append(b"x")
            self.assertEqual(waiting.get().payload, b"x")

    def test_pages_that_are_not_to_be_believed(self):
        spoil = {
            "right": lambda page: None,
            "right, birth not known": lambda page: page.__setitem__(40, 0),
            "magic": lambda page: page.__setitem__(0, 1),
            "version": lambda page: page.__setitem__(8, 2),
            "page_bytes": lambda page: page.__setitem__(16, 8192),
            "device": lambda page: page.__setitem__(24, 1),
            "inode": lambda page: page.__setitem__(32, 1),
            "birth": lambda page: page.__setitem__(40, 1),
            "boot": lambda page: page.__setitem__(56, 1),
            "end beyond the log": lambda page: page.__setitem__(384, 1 << 40),
            "count beyond the log": lambda page: page.__setitem__(520, 1 << 40),
            "closed": lambda page: page.__setitem__(128, 2),
            "superseded": lambda page: page.__setitem__(128, 4),
            "old": lambda page: page.__setitem__(256, time.monotonic_ns() - 10**10),
            "of another clock": lambda page: page.__setitem__(256, time.monotonic_ns() + 10**10),
            "short": lambda page: os.truncate(page.path, 4000),
            "link": lambda page: (os.rename(page.path, page.path + "x"), os.symlink(page.path + "x", page.path)),
            "folder": lambda page: (os.unlink(page.path), os.mkdir(page.path)),
            "fifo": lambda page: (os.unlink(page.path), os.mkfifo(page.path)),
        }
        if os.getuid() == 0:
            spoil["owner"] = lambda page: os.chown(page.path, 12345, 12345)
        for name, change in spoil.items():
            with self.subTest(name):
                writer = self.writer(beats=False)
                change(writer.page)
                followed = self.follows_page(writer)
                writer.die()
                shutil.rmtree(self.control)
                os.mkdir(self.control)
                os.unlink(self.path)
                self.assertEqual(followed, name.startswith("right"))

    def test_an_old_page_is_followed_once_it_moves(self):
        writer = self.writer(beats=False)
        writer.page[256] = 5
        tailer = self.tail()
        self.assertIsNone(tailer.try_next())
        writer.page[256] = 6
        waiting = Waiting(tailer.next)
        self.asleep(writer)
        writer.append(b"x")
        self.assertEqual(waiting.get().payload, b"x")

    def test_the_page_of_a_dead_writer_is_not_followed(self):
        dead = self.writer()
        dead.append(b"a")
        dead.die()
        self.assertFalse(self.follows_page(dead))

    def test_falls_back_to_the_count_behind_a_page_that_stands_still(self):
        first = self.writer(beats=False)
        first.append(b"a")
        tailer = self.tail()
        tailer.next()
        first.die()
        # The next one has no page here, and holds the lock before anyone has looked.
        second = self.writer(control=False)
        second.append(b"b")
        self.assertEqual(tailer.next_timeout(LIMIT).payload, b"b")
        second.append(b"c")
        began = time.monotonic()
        self.assertEqual(tailer.next_timeout(LIMIT).payload, b"c")
        self.assertLess(time.monotonic() - began, 1.5)  # It has not begun to follow that page again.

    def test_a_page_that_was_given_up_has_to_move(self):
        first = self.writer(beats=False)
        progress = self.tail()._progress

        def look():
            until(progress.look_up, "a look at the names")
            return progress._page is not None

        self.assertTrue(look())
        first.die()
        self.assertFalse(look())
        self.writer(control=False)  # Holds the lock, while the heartbeat of the dead one is still young.
        self.assertFalse(look())
        first.page[256] += 1
        self.assertTrue(look())

    def test_ends_and_last_are_those_of_the_page(self):
        writer = self.writer()
        writer.append(b"a", b"b", b"c")
        writer.wakes = False
        self.assertTrue(self.follows_page(writer))  # The count in the log is one ahead.
        reader = self.reader()
        self.assertEqual(reader.count(), 3)
        self.assertEqual(reader.tail(Start.end()).sequence, 3)
        self.assertEqual(reader.tail(Start.last(1)).next().payload, b"c")
        self.assertIsNone(reader.get(3))

    def test_a_torn_event_is_not_taken(self):
        writer = self.writer()
        loads = iter(range(0, 10**6, 40))
        followed = self.tail()._progress._page
        with mock.patch.object(followed, "map", mock.Mock(load=lambda offset: next(loads))):
            self.assertIsNone(followed.event())
        self.assertEqual(followed.event(), (writer.count, writer.end))

    def test_an_end_in_the_midst_of_a_record_is_damage(self):
        writer = self.writer()
        writer.append(b"abc")
        tailer = self.tail()
        tailer.next()
        os.pwrite(writer.fd, log_bytes([b"x" * 10])[8:], writer.end)
        for more in (17, 5):
            writer.page[384] = writer.end + more
            with self.assertRaises(immuta.Damaged) as caught:
                tailer.next_timeout(LIMIT)
            self.assertEqual((caught.exception.position, caught.exception.sequence), (19, 1))

    def test_an_end_beyond_the_file_takes_no_memory(self):
        writer = self.writer()
        tailer = self.tail()
        os.pwrite(writer.fd, struct.pack("<Q", 1 << 29), 8)
        writer.page[384] = 16 + (1 << 29)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaises(immuta.Damaged) as caught:
            tailer.next_timeout(LIMIT)
        self.assertEqual((caught.exception.position, caught.exception.sequence), (8, 0))
        self.assertLess(tracemalloc.get_traced_memory()[1], 1 << 20)


class Ending(Following):
    def all_ways(self):
        """A tailer that waits, by page and doorbell, by page alone, by the count."""
        for options in ({"control": True}, {"control": True, "bell": False}, {"control": False}):
            with self.subTest(**options):
                writer = self.writer(**options)
                try:
                    yield self.tail()
                finally:
                    writer.die()
                os.unlink(self.path)
                shutil.rmtree(self.control)
                os.mkdir(self.control)

    def test_stop(self):
        for tailer in self.all_ways():
            another = self.tail()
            waiting, iterating = Waiting(tailer.next), Waiting(lambda another=another: list(another))
            with self.assertRaises(immuta.TimedOut):
                self.tail().next_timeout(0.1)
            self.assertFalse(waiting.is_over() or iterating.is_over())
            began = time.monotonic()
            tailer.stop()
            self.assertRaises(immuta.Stopped, waiting.get)
            self.assertLess(time.monotonic() - began, 0.5)  # 50 ms, on a machine with time.
            another.stop()
            self.assertEqual(iterating.get(), [])
            self.assertRaises(immuta.Stopped, tailer.next_timeout, 1)
            self.assertEqual(list(tailer), [])

    def test_interrupt(self):
        for tailer in self.all_ways():
            sent = []

            def interrupt():
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

            timer = threading.Timer(0.15, interrupt)
            timer.start()
            self.assertRaises(KeyboardInterrupt, tailer.next_timeout, LIMIT)
            self.assertLess(time.monotonic() - sent[0], 0.5)
            timer.join()

    def test_timeouts_and_what_waiting_costs(self):
        for tailer in self.all_ways():
            for limit in (0, 0.01, 1.0):
                began, worked = time.monotonic(), time.process_time()
                with self.assertRaises(immuta.TimedOut) as caught:
                    tailer.next_timeout(limit)
                worked = time.process_time() - worked
                self.assertIsInstance(caught.exception, TimeoutError)
                self.assertGreaterEqual(time.monotonic() - began, limit)
                self.assertLess(time.monotonic() - began, limit + 1)
            self.assertLess(worked, 0.02)  # Of a second; README has the figures.

    def test_a_removed_log(self):
        for tailer in self.all_ways():
            with open(self.path, "r+b") as file:
                file.write(log_bytes([b"left"]))
            os.rename(self.path, self.path + ".away")
            self.assertEqual(tailer.next_timeout(LIMIT).payload, b"left")
            self.assertRaises(immuta.Replaced, tailer.next_timeout, LIMIT)
            self.assertRaises(immuta.Replaced, tailer.next_timeout, LIMIT)
            os.rename(self.path + ".away", self.path)

    def test_another_file_with_its_name(self):
        writer = self.writer()
        tailer = self.tail()
        waiting = Waiting(tailer.next)
        self.asleep(writer)
        self.write(log_bytes([b"another"]), self.path + ".new")
        os.rename(self.path + ".new", self.path)
        self.assertRaises(immuta.Replaced, waiting.get)


class Writers(Following):
    def test_restarts(self):
        tailer, number = None, 0
        for way in ("close", "die", "close", "die", "die"):
            writer = self.writer()
            if tailer is None:
                tailer = self.tail()
            waiting = Waiting(tailer.next)
            self.asleep(writer)  # On the new page.
            writer.append(b"%d" % number)
            self.assertEqual(waiting.get(), (number, writer.end - 9, b"%d" % number))
            number += 1
            getattr(writer, way)()

    def test_a_superseded_page_is_left_at_once(self):
        first = self.writer()
        tailer = self.tail()
        waiting = Waiting(tailer.next)
        self.asleep(first)
        first.ended.set()
        first.beating.join(LIMIT)
        old = first.page, first.bell
        first._control(self.control, True)
        with mock.patch.object(_control, "_LOOK_UP", 4 * LIMIT):
            old[0][128] = 4
            old[0][392] += 1
            old[0].path = first.page.path
            fd = tailer._progress._page.map
            fd.futex_wake(392)
            self.asleep(first)
        first.append(b"x")
        self.assertEqual(waiting.get().payload, b"x")

    def test_a_killed_process(self):
        command = [sys.executable, "-m", "tests.support", self.path, self.control]
        tailer = None
        for n in range(3):
            child = subprocess.Popen(command, cwd=PACKAGE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                self.assertEqual(child.stdout.readline(), b"ready\n")
                tailer = tailer or self.tail()
                self.assertEqual(tailer.writer(), WriterState.ALIVE)
                child.stdin.write(b"from a child\n")
                child.stdin.flush()
                self.assertEqual(tailer.next_timeout(LIMIT)[::2], (n, b"from a child"))
            finally:
                child.kill() if n < 2 else child.stdin.close()
                child.wait(LIMIT)
                child.stdout.close()
                child.stdin.close()
            self.assertEqual(tailer.writer(), WriterState.GONE if n < 2 else WriterState.CLOSED)
            self.assertEqual(self.reader().writer(), WriterState.GONE if n < 2 else WriterState.CLOSED)

    def test_states(self):
        reader = None

        def state():
            return reader.writer()

        writer = self.writer()
        reader = self.reader()
        self.assertEqual(state(), WriterState.ALIVE)
        writer.publish(3)
        self.assertEqual(state(), WriterState.FAILED)
        writer.die()
        self.assertEqual(state(), WriterState.FAILED)
        self.writer(control=False)
        writer.page[256] = 1
        # The page of the failed one does not move: another holds the lock.
        self.assertEqual(self.reader().writer(), WriterState.ALIVE)

    def test_states_by_the_file(self):
        for data, state in (
            (log_bytes([b"a"]), WriterState.CLOSED),
            (log_bytes([b"a"], tail=bytes(9)), WriterState.GONE),
            (b"", WriterState.CLOSED),
            (bytes(8), WriterState.CLOSED),
            (bytes(16), WriterState.GONE),
            (log_bytes([b"", struct.pack("<Q", 0)], tail=struct.pack("<Q", 2**63), count=3), WriterState.GONE),
        ):
            self.write(data)
            self.assertEqual(self.reader().writer(), state)
        os.unlink(self.path)
        self.writer(control=False)
        self.assertEqual(self.reader().writer(), WriterState.ALIVE)

    def test_gone_has_to_be_found_three_times(self):
        self.write(log_bytes([b"a"], tail=bytes(9)))
        reader = self.reader()
        answers = iter([False, False, True])
        with mock.patch.object(reader._progress.log.__class__, "writer_lock_is_held", lambda log: next(answers)):
            self.assertEqual(reader.writer(), WriterState.ALIVE)

    def test_many_threads_use_a_reader(self):
        writer = self.writer()
        writer.append(*[b"%d" % n for n in range(2000)])
        reader = self.reader()
        workers = [Waiting(lambda k=k: [reader.get(n) == b"%d" % n and reader.count() for n in range(k, 2000, 40)]) for k in range(4)]
        for worker in workers:
            self.assertEqual(set(worker.get()), {2000})

    def test_a_writer_at_full_speed(self):
        writer = self.writer(beats=True)
        tailers = [self.tail(), self.tail(), self.tail(Start.sequence(500))]
        jobs = [
            Waiting(lambda: [tailers[0].next_timeout(LIMIT).payload for _ in range(2000)]),
            Waiting(lambda: self.batches(tailers[1], 2000)),
            Waiting(lambda: [tailers[2].next_timeout(LIMIT).payload for _ in range(1500)]),
        ]
        for n in range(2000):
            writer.append(b"%d" % n * (n % 300))
        payloads = [b"%d" % n * (n % 300) for n in range(2000)]
        self.assertEqual(jobs[0].get(), payloads)
        self.assertEqual(jobs[1].get(), payloads)
        self.assertEqual(jobs[2].get(), payloads[500:])

    def batches(self, tailer, count):
        got = []
        while len(got) < count:
            got += [bytes(p) for p in tailer.next_batch(timeout=LIMIT)]
        return got
