"""The program `follow`: what it prints, and how it ends."""

import os
import signal
import subprocess
import threading
import time
import zlib
from pathlib import Path

from .support import LIMIT, Case, log_bytes

FOLLOW = str(Path(__file__).resolve().parent.parent / "follow")


class Follow(Case):
    def follow(self, *arguments):
        """Exit code, stdout, stderr."""
        done = subprocess.run([FOLLOW, *map(str, arguments)], env=self.environment, capture_output=True, timeout=LIMIT)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def start(self, *arguments):
        process = subprocess.Popen([FOLLOW, *map(str, arguments)], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(process.kill)
        watchdog = threading.Timer(LIMIT, process.kill)  # So that no read from it waits for ever.
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        return process

    def lines(self, payloads, first=0):
        return "".join(f"{n} {len(p)} {zlib.crc32(p):08x}\n" for n, p in enumerate(payloads, first))

    def test_counts_and_skips(self):
        payloads = [b"123456789", b"", b"x" * 700000, *[b"%d" % n for n in range(1000)]]
        self.write(log_bytes(payloads, tail=bytes(1000)))
        self.assertEqual(self.follow(self.path, "--count", 1), (0, "0 9 cbf43926\n", ""))
        self.assertEqual(self.follow(self.path, "--count", 1003), (0, self.lines(payloads), ""))
        self.assertEqual(self.follow("--skip", 2, "--count", 500, self.path), (0, self.lines(payloads[2:502], 2), ""))
        self.assertEqual(self.follow(self.path, "--count", 0), (0, "", ""))

    def test_times_out(self):
        self.write(log_bytes([b"a", b"b"]))
        for arguments, first in (((), 0), (("--count", 3), 0), (("--skip", 1), 1), (("--skip", 5, "--count", 1), 2)):
            code, out, error = self.follow(self.path, *arguments, "--timeout", "0.1")
            self.assertEqual((code, out), (6, self.lines([b"a", b"b"][first:], first)))
            self.assertIn(self.path, error)

    def test_damage(self):
        whole = log_bytes([b"a", b"b", b"c" * 100])
        self.write(whole[:-1])
        code, out, error = self.follow(self.path)
        self.assertEqual((code, out), (5, self.lines([b"a", b"b"])))
        self.assertIn(f"{self.path}: damaged at position 26, record 2: ", error)
        self.assertEqual(self.follow(self.path, "--count", 2)[0], 0)
        self.write(bytes(7))
        code, out, error = self.follow(self.path, "--timeout", 1)
        self.assertEqual((code, out), (5, ""))
        self.assertIn("position 0", error)

    def test_no_log(self):
        began = time.monotonic()
        self.assertEqual(self.follow(self.path)[0], 3)
        self.assertEqual(self.follow(self.path, "--timeout", 0.1)[0], 3)
        self.assertLess(time.monotonic() - began, LIMIT / 2)
        self.assertEqual(self.follow(self.directory)[0], 1)
        late = self.start(self.path, "--timeout", LIMIT, "--count", 1)
        writer = self.writer()
        writer.append(b"late")
        self.assertEqual(late.stdout.read().decode(), self.lines([b"late"]))
        self.assertEqual(late.wait(LIMIT), 0)

    def test_a_log_that_goes_away(self):
        writer = self.writer()
        writer.append(b"a")
        process = self.start(self.path)
        self.assertEqual(process.stdout.readline().decode(), self.lines([b"a"]))
        os.unlink(self.path)
        self.assertEqual(process.wait(LIMIT), 3)

    def test_wrong_arguments(self):
        for arguments in ((), ("a", "b"), ("a", "--skip"), ("a", "--skip", "-1"), ("a", "--count", "x"), ("a", "--count", 2**64)):
            code, out, error = self.follow(*arguments)
            self.assertEqual((code, out), (2, ""))
            self.assertIn("usage", error.lower())
        for seconds in ("nan", "inf", "-1", "x"):
            self.assertEqual(self.follow("a", "--timeout", seconds)[0], 2)
        self.assertEqual(self.follow("a", "--cou", "1")[0], 2)

    def test_flushes_before_it_waits_and_ends_on_signals(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            writer = self.writer()
            writer.append(b"a")
            process = self.start(self.path)
            self.assertEqual(process.stdout.readline().decode(), self.lines([b"a"] * writer.count).splitlines(True)[0])
            if writer.count == 1:
                self.asleep(writer)
            process.send_signal(number)
            self.assertEqual(process.wait(LIMIT), code)
            self.assertEqual(process.stderr.read(), b"")
            writer.die()

    def test_closed_stdout_ends_it_quietly(self):
        self.write(log_bytes([b"x" * 20] * 200000))
        process = self.start(self.path)
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.wait(LIMIT), 0)

    def test_a_closed_stdout_ends_an_idle_one(self):
        self.write(log_bytes([b"a"]))
        for arguments in ((), ("--timeout", 2 * LIMIT)):
            process = self.start(self.path, *arguments)
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.wait(LIMIT), 0)
            self.assertEqual(process.stderr.read(), b"")

    def test_no_stdout(self):
        self.write(log_bytes([b"a"]))
        for redirect in (">&-", ">/dev/full"):
            command = f'exec "$0" "$@" {redirect}'
            done = subprocess.run(["sh", "-c", command, FOLLOW, self.path, "--count", "1"], capture_output=True, timeout=LIMIT)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), r"\Afollow: .*\n\Z")

    def test_a_live_writer(self):
        writer = self.writer()
        process = self.start(self.path, "--count", 3000, "--timeout", LIMIT)
        payloads = [b"%d" % n * (n % 50) for n in range(3000)]
        for n, payload in enumerate(payloads):
            writer.append(payload)
            if n % 700 == 699:
                writer.close() if n % 1400 == 699 else writer.die()
                writer = self.writer()
        self.assertEqual(process.stdout.read().decode(), self.lines(payloads))
        self.assertEqual(process.wait(LIMIT), 0)
