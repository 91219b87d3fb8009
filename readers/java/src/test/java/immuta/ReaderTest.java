package immuta;

import static immuta.TestLog.numbers;
import static immuta.TestLog.payload;
import static immuta.TestLog.text;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.RandomAccessFile;
import java.lang.management.ManagementFactory;
import java.nio.ReadOnlyBufferException;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What is read, from where, and what is refused. */
@Timeout(60)
class ReaderTest {
    private static List<String> readAll(TestLog log, Start start) throws IOException {
        try (Reader reader = log.reader(); Tailer tailer = reader.tail(start)) {
            List<String> all = new ArrayList<>();
            for (Record record; (record = tailer.tryNext()) != null;) {
                all.add(record.sequence() + "@" + record.position() + " " + new String(record.bytes()));
            }
            return all;
        }
    }

    @Test
    void beginsWhereItIsTold() throws IOException {
        try (TestLog log = TestLog.of(text("a"), text(""), text("ccc"), text("dd"))) {
            List<String> all = List.of("0@8 a", "1@17 ", "2@25 ccc", "3@36 dd");
            assertEquals(all, readAll(log, Start.beginning()));
            for (int n = 0; n <= 4; n++) {
                assertEquals(all.subList(n, 4), readAll(log, Start.sequence(n)));
                assertEquals(all.subList(n, 4), readAll(log, Start.skip(n)));
                assertEquals(all.subList(4 - n, 4), readAll(log, Start.last(n)));
            }
            assertEquals(all, readAll(log, Start.last(5)));
            assertEquals(all, readAll(log, Start.last(Long.MAX_VALUE)));
            assertEquals(List.of(), readAll(log, Start.end()));
            assertEquals(List.of(), readAll(log, Start.sequence(Long.MAX_VALUE)));
            assertThrows(IllegalArgumentException.class, () -> Start.sequence(-1));
        }
    }

    @Test
    void whatLiesAheadIsWaitedFor() throws IOException {
        try (TestLog log = TestLog.of(text("a")); Reader reader = log.reader();
            Tailer end = reader.tail(Start.end()); Tailer third = reader.tail(Start.sequence(3))) {
            assertEquals(3, third.sequence());
            log.append(text("b"), text("c"));
            assertEquals("b", new String(end.tryNext().bytes()));
            assertNull(third.tryNext());
            log.append(text("d"), text("e"));
            Record record = third.tryNext();
            assertEquals("d", new String(record.bytes()));
            assertEquals(3, record.sequence());
            assertEquals(4, third.sequence());
            assertEquals(record.position() + 9, third.position());
        }
    }

    @Test
    void countsAndGets() throws IOException {
        byte[] large = payload(7, 3 << 20);
        try (TestLog log = TestLog.of(text("a"), large, text(""), text("d")); Reader reader = log.reader()) {
            assertEquals(4, reader.count());
            assertArrayEquals(large, reader.get(1));
            assertArrayEquals(text(""), reader.get(2));
            assertArrayEquals(text("d"), reader.get(3));
            assertNull(reader.get(4));
            assertNull(reader.get(Long.MAX_VALUE));
            assertNull(reader.get(-1));
            log.append(text("e"));
            assertArrayEquals(text("e"), reader.get(4));
            assertEquals(5, reader.count());
        }
    }

    @Test
    void anEmptyFileIsALogWithoutRecords() throws IOException {
        try (TestLog log = TestLog.raw(); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertEquals(0, reader.count());
            assertNull(tailer.tryNext());
            log.append(text("a"));
            assertEquals("a", new String(tailer.tryNext().bytes()));
        }
    }

    /** Sizes around those of what is read in one step, and records kept while others are read. */
    @Test
    void keptRecordsKeepTheirBytes() throws IOException, InterruptedException {
        int chunk = 256 << 10;
        int[] sizes = {0, 1, chunk - 9, chunk - 8, chunk - 7, chunk, 0, 3 * chunk + 5, 17, chunk / 2, chunk / 2, chunk / 2, 0, 0, 9};
        try (TestLog log = new TestLog()) {
            for (int n = 0; n < sizes.length; n++) {
                log.append(payload(n, sizes[n]));
            }
            try (Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                List<Record> kept = new ArrayList<>();
                while (kept.size() < sizes.length) {
                    kept.addAll(tailer.nextBatch(4));
                }
                for (int n = 0; n < sizes.length; n++) {
                    assertEquals(n, kept.get(n).sequence());
                    assertArrayEquals(payload(n, sizes[n]), kept.get(n).bytes());
                    byte[] viewed = new byte[kept.get(n).payload().remaining()];
                    kept.get(n).payload().get(viewed);
                    assertArrayEquals(payload(n, sizes[n]), viewed);
                }
                assertThrows(ReadOnlyBufferException.class, () -> kept.get(1).payload().put(0, (byte) 1));
                assertThrows(IndexOutOfBoundsException.class, () -> kept.get(1).payload().get(1));
            }
        }
    }

    @Test
    void aBatchIsWhatIsThere() throws IOException, InterruptedException {
        try (TestLog log = TestLog.of(text("a"), text("b"), text("c")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertEquals(2, tailer.nextBatch(2).size());
            List<Record> rest = tailer.nextBatch(1000);
            assertEquals(1, rest.size());
            assertEquals(2, rest.get(0).sequence());
            assertThrows(IllegalArgumentException.class, () -> tailer.nextBatch(0));
            assertThrows(LogException.TimedOut.class, () -> tailer.nextBatch(9, Duration.ofMillis(10)));
        }
    }

    /** What lies behind the count may be anything, and may have become something else once it is counted. */
    @Test
    void whatIsNotCountedIsReadAgainOnceItIs() throws IOException {
        try (TestLog log = TestLog.of(text("a")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            log.write(log.end(), numbers(-1, 1L << 63, 5));
            assertEquals("a", new String(tailer.tryNext().bytes()));
            assertNull(tailer.tryNext());
            log.append(text("b"));
            assertEquals("b", new String(tailer.tryNext().bytes()));
            assertNull(tailer.tryNext());
        }
    }

    private static void isDamaged(TestLog log, int good, long position) throws IOException {
        try (log; Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            for (int n = 0; n < good; n++) {
                assertNotNull(tailer.tryNext());
            }
            for (int again = 0; again < 2; again++) {
                LogException.Damaged error = assertThrows(LogException.Damaged.class, tailer::tryNext);
                assertEquals(log.path, error.path());
                assertEquals(OptionalLong.of(position), error.position());
                assertEquals(OptionalLong.of(good), error.sequence());
                assertTrue(error.getMessage().startsWith(log.path + ": damaged at position " + position + ", record " + good + ": "),
                    error.getMessage());
            }
            assertThrows(LogException.Damaged.class, () -> reader.get(good));
            try (Tailer behind = reader.tail(Start.sequence(good + 1))) {
                assertThrows(LogException.Damaged.class, behind::tryNext);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(longs = {-1, Long.MIN_VALUE, Long.MIN_VALUE + 2, Long.MAX_VALUE, -8, -25, 1L << 40, 1L << 29, 20, 3})
    void aSizeBeyondTheFileIsDamage(long size) throws IOException {
        // Position 8: one byte. Position 17: the lie, with two bytes behind it.
        isDamaged(TestLog.raw(numbers(2, 1), text("a"), numbers(size), text("bb")), 1, 17);
        isDamaged(TestLog.raw(numbers(1, size), text("bb")), 0, 8);
    }

    @Test
    void aCountBeyondTheRecordsIsDamage() throws IOException {
        isDamaged(TestLog.raw(numbers(2, 8, 1)), 1, 24);
        isDamaged(TestLog.raw(numbers(2, 10, 1), text("abcde")), 0 + 1, 26);
    }

    /** Bytes allocated by this thread: a lie of half a gigabyte costs nothing. */
    @Test
    void nothingIsAllocatedForALie() throws IOException {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (TestLog log = TestLog.raw(numbers(1, 1L << 29, 0)); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            long before = threads.getThreadAllocatedBytes(Thread.currentThread().getId());
            assertThrows(LogException.Damaged.class, tailer::tryNext);
            assertTrue(threads.getThreadAllocatedBytes(Thread.currentThread().getId()) - before < 10 << 20);
        }
    }

    @Test
    void aCountThatCannotBeTrueIsDamageAtOpen() throws IOException {
        List<byte[][]> files = List.of(new byte[][] {new byte[1]}, new byte[][] {new byte[7]}, new byte[][] {numbers(1)},
            new byte[][] {numbers(-1, 0)}, new byte[][] {numbers(Long.MIN_VALUE, 0)}, new byte[][] {numbers(3, 0, 0)},
            new byte[][] {numbers(1), new byte[7]});
        for (byte[][] file : files) {
            try (TestLog log = TestLog.raw(file)) {
                LogException.Damaged error = assertThrows(LogException.Damaged.class, log::reader);
                assertEquals(OptionalLong.of(0), error.position());
                assertEquals(OptionalLong.empty(), error.sequence());
            }
        }
    }

    @Test
    void whatIsNoLogIsToldApart() throws IOException {
        try (TestLog log = new TestLog()) {
            LogException missing = assertThrows(LogException.NotFound.class, log::reader);
            assertEquals(log.path, missing.path());
            assertEquals(OptionalLong.empty(), missing.position());
            assertThrows(LogException.NotFound.class, () -> Reader.open(log.path.resolve("below"), log.options()));
            Files.createDirectory(log.path);
            assertThrows(LogException.NotALog.class, log::reader);
            Files.delete(log.path);
            assertEquals("", TestLog.told("mkfifo", log.path.toString()));
            // Opening it would wait for one who writes.
            assertThrows(LogException.NotALog.class, log::reader);
        }
    }

    @Test
    void aRecordThatIsTooLargeIsRefusedAndCanBePassed() throws IOException {
        try (TestLog log = TestLog.of(text("a"), payload(1, 1000), payload(2, 1 << 20), text("d"));
            Reader reader = Reader.open(log.path, log.options().maxRecord(999)); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.tryNext());
            LogException.TooLarge error = assertThrows(LogException.TooLarge.class, tailer::tryNext);
            assertEquals(OptionalLong.of(17), error.position());
            assertEquals(1, error.sequence());
            assertThrows(LogException.TooLarge.class, () -> reader.get(2));
            try (Tailer behind = reader.tail(Start.sequence(3))) {
                assertEquals("d", new String(behind.tryNext().bytes()));
            }
        }
    }

    /** The bytes are there, as a hole; no array could hold them. */
    @Test
    void aRecordOfFourGigabytesIsTooLarge() throws IOException {
        long size = (1L << 32) + 5;
        try (TestLog log = TestLog.raw(numbers(2, size)); RandomAccessFile file = new RandomAccessFile(log.path.toFile(), "rw")) {
            file.setLength(16 + size + 9);
            file.seek(16 + size);
            file.write(numbers(1));
            file.write('b');
            try (Reader reader = Reader.open(log.path, log.options().maxRecord(Long.MAX_VALUE))) {
                assertThrows(LogException.TooLarge.class, () -> reader.tail().tryNext());
                assertEquals("b", new String(reader.get(1)));
            }
        }
    }

    @Test
    void aLogThatIsRemovedOrReplacedIsToldAfterItsRecords() throws IOException {
        for (boolean another : new boolean[] {false, true}) {
            try (TestLog log = TestLog.of(text("a"), text("b")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                assertNotNull(tailer.tryNext());
                if (another) {
                    Files.write(log.dir.resolve("other"), numbers(0));
                    Files.move(log.dir.resolve("other"), log.path, StandardCopyOption.REPLACE_EXISTING);
                } else {
                    Files.delete(log.path);
                }
                assertEquals("b", new String(tailer.tryNext().bytes()));
                long begin = System.nanoTime();
                assertThrows(LogException.Replaced.class, tailer::next);
                assertTrue(System.nanoTime() - begin < 1_000_000_000L);
            }
        }
    }

    /** Another program cuts the file: an error, and not the end of this process. */
    @Test
    void aFileThatIsCutIsDamage() throws IOException {
        try (TestLog log = TestLog.of(payload(0, 300_000), payload(1, 300_000)); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.tryNext());
            try (RandomAccessFile file = new RandomAccessFile(log.path.toFile(), "rw")) {
                file.setLength(300_100);
            }
            LogException.Damaged error = assertThrows(LogException.Damaged.class, tailer::tryNext);
            assertEquals(OptionalLong.of(300_016), error.position());
            try (RandomAccessFile file = new RandomAccessFile(log.path.toFile(), "rw")) {
                file.setLength(0);
            }
            assertThrows(LogException.Damaged.class, tailer::tryNext);
            assertNull(reader.tail().tryNext());
        }
    }

    @Test
    void aCountThatFallsIsDamage() throws IOException {
        try (TestLog log = TestLog.of(text("a"), text("b")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.tryNext());
            assertNotNull(tailer.tryNext());
            log.write(0, numbers(1));
            LogException.Damaged error = assertThrows(LogException.Damaged.class, tailer::tryNext);
            assertEquals(OptionalLong.of(0), error.position());
        }
    }

    @Test
    void waitsForTheLogToAppear() throws Exception {
        try (TestLog log = new TestLog()) {
            ReaderOptions options = log.options().waitForLog(Duration.ofMillis(30));
            long begin = System.nanoTime();
            assertThrows(LogException.NotFound.class, () -> Reader.open(log.path, options));
            assertTrue(System.nanoTime() - begin >= 30_000_000);
            try (Waiting<Reader> waiting = new Waiting<>(() -> Reader.open(log.path, options.waitForLog(Duration.ofSeconds(30))))) {
                waiting.isWaiting();
                Files.write(log.dir.resolve("new"), numbers(1, 0));
                Files.move(log.dir.resolve("new"), log.path);
                try (Reader reader = waiting.result()) {
                    assertEquals(1, reader.count());
                }
            }
            Files.delete(log.path);
            try (Waiting<Reader> waiting = new Waiting<>(() -> Reader.open(log.path, options))) {
                waiting.isWaiting();
                waiting.thread.interrupt();
                assertInstanceOf(InterruptedIOException.class, waiting.error());
            }
        }
    }

    @Test
    void readersLeaveTheirThreadsInterruptedAndTheirFilesOpen() throws IOException {
        try (TestLog log = TestLog.of(text("a"), text("b")); Reader reader = log.reader()) {
            Thread.currentThread().interrupt();
            try (Tailer tailer = reader.tail()) {
                assertNotNull(tailer.tryNext());
                assertThrows(InterruptedException.class, () -> {
                    tailer.next();
                    tailer.next();
                });
                assertFalse(Thread.interrupted(), "what was thrown is told");
                assertNotNull(reader.get(1));
            } finally {
                Thread.interrupted();
            }
        }
    }
}
