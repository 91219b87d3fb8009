package immuta;

import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** A call in a thread of its own, that is expected to wait. */
final class Waiting<T> implements AutoCloseable {
    final Thread thread;
    private volatile T result;
    private volatile Throwable error;
    private volatile long endedAt;

    Waiting(Callable<T> call) {
        thread = new Thread(() -> {
            try {
                result = call.call();
            } catch (Throwable thrown) {
                error = thrown;
            }
            endedAt = System.nanoTime();
        });
        thread.start();
    }

    /** Comes back once it has been seen to sleep, in Java or in the kernel, and still goes on. */
    void isWaiting() throws Exception {
        var threads = ManagementFactory.getThreadMXBean();
        long limit = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        // A thread that waits uses next to nothing of a while.
        for (long last = -1; ; last = threads.getThreadCpuTime(thread.getId())) {
            TimeUnit.MILLISECONDS.sleep(60);
            assertTrue(thread.isAlive(), () -> "it does not wait: " + result + " " + error);
            assertTrue(System.nanoTime() < limit, "it is busy");
            if (last >= 0 && threads.getThreadCpuTime(thread.getId()) - last < TimeUnit.MILLISECONDS.toNanos(10)) {
                return;
            }
        }
    }

    private void join() throws InterruptedException {
        thread.join(TimeUnit.SECONDS.toMillis(20));
        assertTrue(!thread.isAlive(), "it still waits");
    }

    T result() throws Exception {
        join();
        if (error != null) {
            fail(error);
        }
        return result;
    }

    Throwable error() throws InterruptedException {
        join();
        assertNotNull(error, () -> "no error, but " + result);
        return error;
    }

    /** How long after this moment it ended, in milliseconds. */
    long endedAfter(long nanoTime) throws InterruptedException {
        join();
        return TimeUnit.NANOSECONDS.toMillis(endedAt - nanoTime);
    }

    /** Most of what was measured, in milliseconds, is less: one may be late on a machine that does other things. */
    static void areMostlyBelow(long limit, List<Long> measured) {
        long median = measured.stream().sorted().skip(measured.size() / 2).findFirst().orElseThrow();
        assertTrue(median < limit, () -> "they took " + measured + " ms");
    }

    @Override
    public void close() throws InterruptedException {
        thread.interrupt();
        join();
    }
}
