package immuta;

import static immuta.TestLog.text;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import immuta.TestLog.Page;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.management.ManagementFactory;
import java.lang.ref.Reference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Which pages are followed. A page tells more than the count here, which no writer does: what is delivered then shows what was followed.
 */
@Timeout(60)
class ControlTest {
    private static final Duration SOON = Duration.ofSeconds(20);

    private static String next(Tailer tailer) throws Exception {
        return new String(tailer.nextTimeout(SOON).bytes());
    }

    /** Whether a new tailer follows the page. */
    private static boolean isFollowed(TestLog log, Page page) throws Exception {
        try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
            log.place(text("placed"));
            page.publish();
            boolean followed = tailer.tryNext() != null;
            log.storeCount();
            return followed;
        }
    }

    /** Time enough for the tailer to look who writes: a page that told more than the log before that would not be believed. */
    private static void isTakenUp(Tailer tailer, Page page) {
        for (int n = 0; n < 5; n++) {
            page.beat();
            assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(100)));
        }
    }

    @Test
    void aPageIsFollowedWhileItsWriterLives() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            Page page = log.page();
            assertTrue(!isFollowed(log, page), "nobody holds the lock");
            log.lock();
            page = log.page();
            assertTrue(isFollowed(log, page));
            assertTrue(isFollowed(log, page));
            log.unlock();
            assertTrue(!isFollowed(log, page), "nobody holds the lock any more");
        }
    }

    @Test
    void aPageThatStandsStillIsTakenUpOnceItMoves() throws Exception {
        for (long age : new long[] {2_100_000_000L, -3_000_000_000L}) {
            try (TestLog log = TestLog.of(text("a"))) {
                log.lock();
                Page page = log.page();
                page.page.putLong(Page.HEARTBEAT, System.nanoTime() - age);
                try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                    log.place(text("b"));
                    page.publish();
                    assertNull(tailer.tryNext(), "it did not move when the tailer was made");
                    // It has moved since.
                    assertEquals("b", next(tailer));
                }
            }
        }
    }

    /** One field is wrong at a time. */
    @ParameterizedTest
    @ValueSource(ints = {0, Page.VERSION, Page.PAGE_BYTES, Page.DEVICE, Page.INODE, Page.BIRTH, Page.BOOT_ID, Page.BOOT_ID + 8})
    void aForeignPageIsNotBelieved(int field) throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            long told = page.page.getLong(field);
            page.page.putLong(field, told + 1);
            assertTrue(!isFollowed(log, page));
            page.page.putLong(field, told);
            assertTrue(isFollowed(log, page));
        }
    }

    @Test
    void aPageThatSaysMoreThanTheLogIsNotBelieved() throws Exception {
        try (TestLog log = TestLog.of(text("a"), text("b"))) {
            log.lock();
            Page page = log.page();
            page.page.putLong(Page.SLOTS + 8, 3);
            assertTrue(!isFollowed(log, page), "its count");
            page = log.page();
            page.page.putLong(Page.END, log.end() + 1);
            page.page.putLong(Page.SLOTS + 16, log.end() + 1);
            assertTrue(!isFollowed(log, page), "its end");
        }
    }

    @Test
    void whatIsNoPageIsNotBelieved() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            try (RandomAccessFile file = new RandomAccessFile(page.path.toFile(), "rw")) {
                file.setLength(4095);
            }
            try (Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                assertNotNull(tailer.tryNext());
            }
            page = log.page();
            Path moved = log.dir.resolve("moved");
            Files.move(page.path, moved);
            Files.createSymbolicLink(page.path, moved);
            assertTrue(!isFollowed(log, page), "a link");
            Files.delete(page.path);
            assertEquals("", TestLog.told("mkfifo", page.path.toString()));
            assertTrue(!isFollowed(log, page), "a pipe");
            Files.delete(page.path);
            Files.createDirectory(page.path);
            assertTrue(!isFollowed(log, page), "a directory");
        }
    }

    @Test
    void aSleeperAnnouncesItselfAndIsWoken() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                List<Long> took = new ArrayList<>();
                for (int n = 0; n < 20; n++) {
                    try (Waiting<Record> waiting = new Waiting<>(tailer::next)) {
                        waiting.isWaiting();
                        page.beat();
                        assertEquals(Native.AVAILABLE ? n + 1 : 0, page.announced());
                        log.place(text("b" + n));
                        long now = System.nanoTime();
                        page.publish();
                        assertEquals("b" + n, new String(waiting.result().bytes()));
                        took.add(waiting.endedAfter(now));
                    }
                    log.storeCount();
                }
                // Few sleeps, if any, came to their bound.
                Waiting.areMostlyBelow(30, took);
            }
        }
    }

    @Test
    void aGreaterAnnouncementIsLeftAlone() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            page.bell.putLong(128, 77);
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(50)));
            }
            assertEquals(77, page.announced());
        }
    }

    @Test
    void aForeignDoorbellIsNotRung() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            for (int field : new int[] {0, 8, 16}) {
                Page page = log.page();
                page.bell.putLong(field, page.bell.getLong(field) + 1);
                try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end());
                    Waiting<Record> waiting = new Waiting<>(tailer::next)) {
                    waiting.isWaiting();
                    log.place(text("b"));
                    long now = System.nanoTime();
                    page.publish();
                    assertNotNull(waiting.result());
                    assertTrue(waiting.endedAfter(now) < 150, () -> "it did not look");
                    assertEquals(0, page.announced());
                }
                log.storeCount();
            }
        }
    }

    @Test
    void aTailerSurvivesCloseAndRestart() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page(1);
            try (Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                assertEquals("a", next(tailer));
                // A writer without a page.
                page.publish(2);
                page.remove();
                log.unlock();
                log.append(text("b"));
                assertEquals("b", next(tailer));
                // One with a page, under which the count falls behind.
                log.lock();
                page = log.page(2);
                isTakenUp(tailer, page);
                log.place(text("c"));
                page.publish();
                assertEquals("c", next(tailer));
                log.storeCount();
                // One that takes its place while the first is there.
                page.publish(4);
                page = log.page(3);
                isTakenUp(tailer, page);
                log.place(text("d"));
                page.publish();
                assertEquals("d", next(tailer));
            }
        }
    }

    @Test
    void whatAKilledWriterCountedIsDelivered() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(50)));
                log.append(text("b"));
                assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(50)), "the page is followed");
                log.unlock();
                long begin = System.nanoTime();
                assertEquals("b", next(tailer));
                assertTrue(System.nanoTime() - begin < 1_000_000_000L);
            }
        }
    }

    @Test
    void aPageThatHasStoppedIsLeftOnceTheLogIsAhead() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                log.append(text("b"));
                long begin = System.nanoTime();
                assertEquals("b", next(tailer));
                long took = (System.nanoTime() - begin) / 1_000_000;
                assertTrue(took > 1500 && took < 4000, took + " ms");
            }
        }
    }

    /** The numbers of a dead writer's page are no place in a log that was written anew. */
    @Test
    void aDeadWritersPageTellsNoPlace() throws Exception {
        try (TestLog log = new TestLog()) {
            for (int n = 0; n < 100; n++) {
                log.append(text("of the first"));
            }
            log.lock();
            log.page();
            log.unlock();
            log.empty();
            for (int n = 0; n < 300; n++) {
                log.append(text("number " + n));
            }
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.sequence(299))) {
                assertEquals("number 299", next(tailer));
            }
        }
    }

    @Test
    void aLogThatIsCutUnderItsWriterIsDamage() throws Exception {
        try (TestLog log = TestLog.of(text("a"), text("b"))) {
            log.lock();
            Page page = log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                assertEquals("a", next(tailer));
                assertEquals("b", next(tailer));
                log.empty();
                LogException.Damaged error = assertThrows(LogException.Damaged.class, () -> {
                    for (int n = 0; n < 30; n++) {
                        page.beat();
                        try {
                            tailer.nextTimeout(Duration.ofMillis(100));
                        } catch (LogException.TimedOut still) {
                            // The writer lives on.
                        }
                    }
                });
                assertEquals(OptionalLong.of(0), error.position());
            }
        }
    }

    /** A writer that flushes counts first, and tells its page only once the record is on the disk. */
    @Test
    void whatIsCountedInALogThatWasReplacedIsDelivered() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                log.append(text("b"));
                Files.delete(log.path);
                assertEquals("b", next(tailer));
                assertThrows(LogException.Replaced.class, () -> next(tailer));
            }
        }
    }

    /** Bytes allocated by this thread: a page that tells of half a gigabyte more than the file has costs nothing. */
    @Test
    void nothingIsAllocatedForAPageThatLies() throws Exception {
        var threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                log.write(log.end(), TestLog.numbers(1 << 29));
                page.page.putLong(Page.END, log.end() + 8 + (1 << 29));
                long before = threads.getThreadAllocatedBytes(Thread.currentThread().getId());
                LogException.Damaged error = assertThrows(LogException.Damaged.class, tailer::tryNext);
                assertEquals(OptionalLong.of(log.end()), error.position());
                assertTrue(threads.getThreadAllocatedBytes(Thread.currentThread().getId()) - before < 10 << 20);
            }
        }
    }

    /** How many files of the log's control directory are in the memory of this process. */
    private static long mapped(TestLog log) throws IOException {
        try (Stream<String> lines = Files.lines(Path.of("/proc/self/maps"))) {
            return lines.filter(line -> line.contains(log.control.toString())).count();
        }
    }

    @Test
    void aPageThatIsNotBelievedIsNotMapped() throws Exception {
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            Page page = log.page();
            page.page.putLong(Page.SLOTS + 8, 2);
            for (boolean zeros : new boolean[] {false, true}) {
                if (zeros) {
                    page.remove();
                    Files.write(page.path, new byte[4096]);
                }
                long before = mapped(log);
                for (int n = 0; n < 20; n++) {
                    try (Reader reader = log.reader(); Tailer tailer = reader.tail()) {
                        assertNotNull(tailer.tryNext());
                        assertEquals(WriterState.ALIVE, tailer.writer());
                    }
                }
                assertTrue(mapped(log) <= before, () -> "it was mapped");
            }
            Reference.reachabilityFence(page);
        }
    }

    @Test
    void aPageThatIsLeftIsNotMapped() throws Exception {
        Assumptions.assumeTrue(Native.AVAILABLE, "before 22 only a garbage collection unmaps");
        try (TestLog log = TestLog.of(text("a"))) {
            log.lock();
            List<Page> pages = new ArrayList<>(List.of(log.page(1)));
            try (Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
                for (int n = 2; n < 20; n++) {
                    pages.get(n - 2).publish(4);
                    pages.add(log.page(n));
                    // Whoever asks first finds the new one.
                    if (n % 2 == 0) {
                        assertEquals(WriterState.ALIVE, tailer.writer());
                    }
                    assertNull(tailer.tryNext());
                    log.place(text("b" + n));
                    pages.get(n - 1).publish();
                    assertEquals("b" + n, next(tailer));
                    log.storeCount();
                }
                // A page and a doorbell of the test for each, those that are followed, and the ones that the reader knows since it made the tailer.
                assertEquals(2 * pages.size() + 4, mapped(log));
            }
            Reference.reachabilityFence(pages);
        }
    }

    @Test
    void tellsWhoWrites() throws Exception {
        try (TestLog log = TestLog.of(text("a"), text("b")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertEquals(WriterState.CLOSED, reader.writer(), "the file ends with its last record");
            log.write(log.end(), new byte[100]);
            assertEquals(WriterState.GONE, reader.writer());
            assertNotNull(tailer.tryNext());
            assertEquals(WriterState.GONE, tailer.writer());
            log.lock();
            assertEquals(WriterState.ALIVE, reader.writer());
            Page page = log.page();
            assertEquals(WriterState.ALIVE, reader.writer());
            page.publish(3);
            assertEquals(WriterState.FAILED, reader.writer());
            page.page.putLong(Page.HEARTBEAT, System.nanoTime() - 5_000_000_000L);
            try (Reader other = log.reader()) {
                assertEquals(WriterState.ALIVE, other.writer(), "another holds the lock, and has no page");
            }
            page.publish(2);
            assertEquals(WriterState.ALIVE, reader.writer());
            log.unlock();
            assertEquals(WriterState.CLOSED, reader.writer());
            assertEquals(WriterState.CLOSED, tailer.writer());
            page.publish(1);
            assertEquals(WriterState.GONE, reader.writer());
            page.publish(3);
            assertEquals(WriterState.FAILED, reader.writer());
            page.publish(4);
            assertEquals(WriterState.GONE, reader.writer());
        }
    }

    @Test
    void anEmptyFileWasClosed() throws Exception {
        try (TestLog log = TestLog.raw(); Reader reader = log.reader()) {
            assertEquals(WriterState.CLOSED, reader.writer());
        }
    }

    /** Both ways of asking say the same. */
    @Test
    void theLockIsSeenInTheListOfLocks() throws Exception {
        try (TestLog log = TestLog.of(text("a"), text("b")); WriterLock lock = new WriterLock(log.path, LogFile.Identity.of(log.path));
            WriterLock listed = new WriterLock(log.path, LogFile.Identity.of(log.path))) {
            // Without its descriptor it looks there.
            listed.close();
            assertTrue(!lock.isHeld() && !listed.isHeld());
            log.lock();
            assertTrue(lock.isHeld() && listed.isHeld());
            log.unlock();
            assertTrue(!lock.isHeld() && !listed.isHeld());
        }
    }
}
