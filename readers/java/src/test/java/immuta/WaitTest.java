package immuta;

import static immuta.TestLog.text;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** How waits begin and end, without a control page and with one. */
@Timeout(60)
class WaitTest {
    /** So often a wait is ended: one that only ended with its bound of 200 ms would look prompt now and then. */
    private static final int TIMES = 15;

    /** A log of one record, whose writer is another process, and which has a page or not. */
    private static TestLog log(boolean page) throws Exception {
        TestLog log = TestLog.of(text("a"));
        if (page) {
            log.lock();
            log.page();
        }
        return log;
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aWaitEndsWhenItsTimeIsOver(boolean page) throws Exception {
        try (TestLog log = log(page); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.nextTimeout(Duration.ZERO));
            for (int millis : new int[] {0, 1, 30, 250}) {
                long begin = System.nanoTime();
                LogException.TimedOut error = assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(millis)));
                long took = (System.nanoTime() - begin) / 1_000_000;
                assertTrue(took >= millis && took < millis + 1000, took + " ms");
                assertEquals(log.path, error.path());
            }
            assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofSeconds(-1)));
            log.append(text("b"));
            if (page) {
                // The count does not matter to who follows a page.
                assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(20)));
            } else {
                assertEquals("b", new String(tailer.nextTimeout(Duration.ofSeconds(Long.MAX_VALUE)).bytes()));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void stopEndsAWaitAtOnceAndForGood(boolean page) throws Exception {
        try (TestLog log = log(page); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            List<Long> took = new ArrayList<>();
            for (int n = 0; n < TIMES; n++) {
                try (Tailer other = reader.tail(Start.end()); Waiting<Record> waiting = new Waiting<>(other::next)) {
                    waiting.isWaiting();
                    long now = System.nanoTime();
                    other.stop();
                    assertNull(waiting.result());
                    took.add(waiting.endedAfter(now));
                }
            }
            Waiting.areMostlyBelow(50, took);
            tailer.stop();
            assertNull(tailer.next());
            assertNull(tailer.nextTimeout(Duration.ofSeconds(9)));
            assertEquals(List.of(), tailer.nextBatch(9));
            assertFalse(tailer.iterator().hasNext());
            assertNotNull(tailer.tryNext());
            if (!page) {
                log.append(text("b"));
                assertNull(tailer.next(), "also where there is something");
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void anInterruptEndsAWaitAtOnce(boolean page) throws Exception {
        try (TestLog log = log(page); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.next());
            List<Long> took = new ArrayList<>();
            for (int n = 0; n < TIMES; n++) {
                try (Waiting<Record> waiting = new Waiting<>(tailer::next)) {
                    waiting.isWaiting();
                    long now = System.nanoTime();
                    waiting.thread.interrupt();
                    assertInstanceOf(InterruptedException.class, waiting.error());
                    took.add(waiting.endedAfter(now));
                }
            }
            Waiting.areMostlyBelow(50, took);
            // It is as good as new.
            assertThrows(LogException.TimedOut.class, () -> tailer.nextTimeout(Duration.ofMillis(1)));
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aWaitCostsNextToNothing(boolean page) throws Exception {
        try (TestLog log = log(page); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            assertNotNull(tailer.next());
            try (Waiting<Record> waiting = new Waiting<>(tailer::next)) {
                waiting.isWaiting();
                var threads = ManagementFactory.getThreadMXBean();
                long before = threads.getThreadCpuTime(waiting.thread.getId());
                waiting.thread.join(2000);
                assertTrue(waiting.thread.isAlive());
                double share = (threads.getThreadCpuTime(waiting.thread.getId()) - before) / 2e9;
                // An idle follower has 1 % of a core; this is young code on a machine that does other things.
                assertTrue(share < 0.05, () -> "it uses " + share + " of a core");
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aLoopEndsWhenItIsStoppedOrInterrupted(boolean stop) throws Exception {
        try (TestLog log = TestLog.of(text("a"), text("b")); Reader reader = log.reader(); Tailer tailer = reader.tail()) {
            AtomicInteger seen = new AtomicInteger();
            try (Waiting<Boolean> waiting = new Waiting<>(() -> {
                for (Record record : tailer) {
                    assertEquals(seen.getAndIncrement(), record.sequence());
                }
                return Thread.currentThread().isInterrupted();
            })) {
                waiting.isWaiting();
                log.append(text("c"));
                waiting.isWaiting();
                assertEquals(3, seen.get());
                if (stop) {
                    tailer.stop();
                } else {
                    waiting.thread.interrupt();
                }
                assertEquals(!stop, waiting.result());
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void whatComesEndsAWait(boolean batch) throws Exception {
        try (TestLog log = TestLog.of(text("a")); Reader reader = log.reader(); Tailer tailer = reader.tail(Start.end())) {
            List<Long> took = new ArrayList<>();
            for (int n = 0; n < 5; n++) {
                try (Waiting<Record> waiting = new Waiting<>(() -> batch ? tailer.nextBatch(9).get(0) : tailer.next())) {
                    waiting.isWaiting();
                    log.append(text("b" + n));
                    long now = System.nanoTime();
                    assertEquals("b" + n, new String(waiting.result().bytes()));
                    took.add(waiting.endedAfter(now));
                }
            }
            Waiting.areMostlyBelow(30, took);
        }
    }
}
