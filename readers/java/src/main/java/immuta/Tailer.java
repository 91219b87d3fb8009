package immuta;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.spi.AbstractInterruptibleChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * Follows a log from one record to the next, also across its writer's close, death and restart. For one thread at a time; only
 * {@link #stop} may be called from another.
 *
 * <p>{@code for (Record record : tailer)} waits for each record, and ends once the tailer is stopped or its thread is interrupted
 * (which stays interrupted). What fails there is thrown as an {@link UncheckedIOException}.
 */
public final class Tailer implements Iterable<Record>, AutoCloseable {
    private static final long NO_LIMIT = Long.MAX_VALUE;
    /** How often at most, and in a wait at least, it looks for what the control page does not say. */
    private static final long CHECK_NANOS = TimeUnit.MILLISECONDS.toNanos(200);
    /** The same where nothing can end a sleep in the kernel before its time. */
    private static final long SLICE_NANOS = TimeUnit.MILLISECONDS.toNanos(40);
    /** About what a wake-up takes. */
    private static final long SPIN_NANOS = TimeUnit.MICROSECONDS.toNanos(20);
    /** Where it cannot sleep it looks at intervals: a part of what it has waited already, but no less and no more than these. */
    private static final int PART = 8;
    private static final long INTERVAL_LEAST = TimeUnit.MICROSECONDS.toNanos(100);
    private static final long INTERVAL_MOST = TimeUnit.MILLISECONDS.toNanos(18);
    /** After so many sleeps in a row that end at once for no reason it looks at intervals: a kernel that refuses would keep it busy. */
    private static final int SHORT_SLEEPS = 10;

    private final LogFile log;
    private final Control control;
    private final Cursor cursor;
    /** Records below this are passed over. */
    private final long first;
    /** The page that is followed; without one, the count in the log tells. */
    private ControlPage page;
    private long checkedAt;
    private int shortSleeps;
    /** Nothing came in the last wait, so that spinning would be idle. */
    private boolean idle;

    private volatile boolean stopped;
    private volatile Thread parked;
    private final Native.Sleep sleep = Native.AVAILABLE ? new Native.Sleep() : null;

    Tailer(LogFile log, ReaderOptions options, Place from, long first) throws IOException {
        this.log = log;
        this.first = first;
        control = new Control(log, options.controlDir);
        cursor = new Cursor(log, options.maxRecord, from);
        page = control.follow();
        checkedAt = System.nanoTime();
    }

    /**
     * The next record; waits for it without limit.
     *
     * @return null once stopped
     * @throws LogException.Damaged where the log cannot be what it says, after the records before that
     * @throws LogException.TooLarge beyond {@link ReaderOptions#maxRecord}
     * @throws LogException.Replaced when the log was removed or another file has its name, after all that is readable
     * @throws InterruptedException when the thread is interrupted
     */
    public Record next() throws IOException, InterruptedException {
        Record record = stopped ? null : fromMemory();
        return record != null ? record : await(NO_LIMIT, null);
    }

    /**
     * The next record; waits for it for at most {@code limit}.
     *
     * @return null once stopped
     * @throws LogException.TimedOut when nothing came; else as for {@link #next()}
     */
    public Record nextTimeout(Duration limit) throws IOException, InterruptedException {
        Record record = stopped ? null : fromMemory();
        return record != null ? record : await(nanos(limit), limit);
    }

    /**
     * The next record if it is published, without waiting.
     *
     * @return null where there is none now
     * @throws IOException as for {@link #next()}
     */
    public Record tryNext() throws IOException {
        while (true) {
            Record record = fromFile();
            if (record != null) {
                return record;
            }
            if (!look()) {
                return null;
            }
        }
    }

    /**
     * Some of the next records that are there already, up to {@code most} and about 256 KiB together; waits like {@link #next()} where there
     * is none, and is then of one or more.
     *
     * @return empty once stopped
     */
    public List<Record> nextBatch(int most) throws IOException, InterruptedException {
        checkBatch(most);
        return batch(most, next());
    }

    /** The same with a limit of time, as {@link #nextTimeout}. */
    public List<Record> nextBatch(int most, Duration limit) throws IOException, InterruptedException {
        checkBatch(most);
        return batch(most, nextTimeout(limit));
    }

    private static void checkBatch(int most) {
        if (most < 1) {
            throw new IllegalArgumentException("a batch has 1 record or more, not " + most);
        }
    }

    private List<Record> batch(int most, Record record) {
        List<Record> batch = new ArrayList<>(record == null ? 0 : Math.min(most, 1024));
        while (record != null) {
            batch.add(record);
            record = batch.size() < most ? fromMemory() : null;
        }
        return batch;
    }

    static long nanos(Duration limit) {
        try {
            return Math.max(0, limit.toNanos());
        } catch (ArithmeticException centuries) {
            return NO_LIMIT;
        }
    }

    /** Ends the waits of this tailer, for good: whoever waits, or begins to, gets null. From any thread. */
    public void stop() {
        stopped = true;
        LockSupport.unpark(parked);
        if (sleep != null) {
            sleep.wake();
        }
    }

    /** Stops it. */
    @Override
    public void close() {
        stop();
    }

    /** Who is writing. */
    public WriterState writer() throws IOException {
        return control.writer(cursor.place());
    }

    /** The sequence of the next record. */
    public long sequence() {
        return Math.max(first, cursor.sequence());
    }

    /** The position of the next record, in bytes; of an earlier one while the tailer has not come to its start. */
    public long position() {
        return cursor.position();
    }

    @Override
    public Iterator<Record> iterator() {
        return new Iterator<>() {
            private Record ready;

            @Override
            public boolean hasNext() {
                try {
                    ready = ready != null ? ready : Tailer.this.next();
                    return ready != null;
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                } catch (InterruptedException interrupted) {
                    Thread.currentThread().interrupt();
                    return false;
                }
            }

            @Override
            public Record next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                Record record = ready;
                ready = null;
                return record;
            }
        };
    }

    private Record fromMemory() {
        return cursor.sequence() >= first ? cursor.fromMemory() : null;
    }

    private Record fromFile() throws IOException {
        while (cursor.sequence() < first) {
            if (!cursor.pass()) {
                return null;
            }
        }
        return cursor.next();
    }

    /** Looks how far the log has come; true where that is further than was known. */
    private boolean look() throws IOException {
        if (isFurther()) {
            return true;
        }
        boolean ended = page != null && page.state() != ControlPage.OPEN && page.state() != ControlPage.FAILED;
        long now = System.nanoTime();
        if (!ended && now - checkedAt < CHECK_NANOS) {
            return false;
        }
        checkedAt = now;
        // Before the last look: what was published under the name is delivered before it is told that the name is gone.
        boolean replaced = log.isReplaced();
        // Of a log that was replaced the count tells the rest: it may be ahead of the page, for the length of a flush.
        page = replaced ? null : control.follow();
        if (isFurther()) {
            return true;
        }
        if (replaced) {
            throw new LogException.Replaced(log.path);
        }
        if (page != null) {
            // The page's writer need not see that another program cuts its file.
            notLess(log.count());
        }
        return false;
    }

    private boolean isFurther() throws IOException {
        if (page != null) {
            long end = page.end();
            if (end != cursor.end() || !cursor.isByEnd()) {
                cursor.allow(Cursor.ALL, end);
            }
            return end > cursor.position();
        }
        long count = log.count();
        notLess(count);
        if (count == cursor.sequence()) {
            return false;
        }
        cursor.allow(count, log.size());
        return true;
    }

    private void notLess(long count) throws LogException {
        if (count < cursor.sequence()) {
            throw new LogException.Damaged(log.path, 0, "the count says " + count + " records, and " + cursor.sequence() + " were there");
        }
    }

    private Record await(long nanos, Duration limit) throws IOException, InterruptedException {
        long begin = System.nanoTime();
        while (true) {
            if (stopped) {
                return null;
            }
            if (Thread.interrupted()) {
                throw new InterruptedException();
            }
            Record record = tryNext();
            if (record != null) {
                idle = false;
                return record;
            }
            long waited = System.nanoTime() - begin;
            long left = nanos == NO_LIMIT ? NO_LIMIT : nanos - waited;
            if (left <= 0) {
                throw new LogException.TimedOut(log.path, limit);
            }
            pause(waited, Math.min(left, CHECK_NANOS));
        }
    }

    /** Waits until there may be something, but no longer than {@code most}. */
    private void pause(long waited, long most) {
        if (page != null && !idle && isNewsNear()) {
            return;
        }
        idle = true;
        if (page != null && page.canSleep() && shortSleeps < SHORT_SLEEPS) {
            sleep(most);
        } else {
            long interval = Math.min(Math.max(waited / PART, INTERVAL_LEAST), INTERVAL_MOST);
            parked = Thread.currentThread();
            // Looked at behind the store above, so that stop() sees either this thread or is seen.
            if (!stopped) {
                LockSupport.parkNanos(this, Math.min(interval, most));
            }
            parked = null;
        }
    }

    private boolean isNewsNear() {
        long begin = System.nanoTime();
        do {
            if (page.end() != cursor.end()) {
                return true;
            }
            Thread.onSpinWait();
        } while (System.nanoTime() - begin < SPIN_NANOS);
        return false;
    }

    private void sleep(long most) {
        long bound = Native.WAITS_FOR_TWO ? most : Math.min(most, SLICE_NANOS);
        long begin = System.nanoTime();
        sleep.prepare();
        if (stopped) {
            return;
        }
        new Interruptible().run(() -> page.sleep(sleep, cursor.end(), bound));
        long lasted = System.nanoTime() - begin;
        boolean atOnce = lasted < SPIN_NANOS && page.end() == cursor.end() && !stopped;
        shortSleeps = atOnce ? shortSleeps + 1 : 0;
    }

    /** Has an interrupt of this thread end its sleep in the kernel: what closes a channel that is blocked can also wake a sleeper. */
    private final class Interruptible extends AbstractInterruptibleChannel {
        void run(Runnable body) {
            try {
                begin();
                body.run();
                end(true);
            } catch (ClosedByInterruptException interrupted) {
                // The thread is interrupted, and is asked for that before it sleeps again.
            } catch (java.nio.channels.AsynchronousCloseException impossible) {
                throw new AssertionError(impossible);
            }
        }

        @Override
        protected void implCloseChannel() {
            sleep.wake();
        }
    }
}
