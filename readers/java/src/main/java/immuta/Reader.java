package immuta;

import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Path;

/**
 * An opened log, from which any number of tailers may be taken. Threads may share it.
 *
 * <p>Nothing of it locks the log, holds its writer up, or writes anything but its wish to be woken.
 */
public final class Reader implements Closeable {
    private final LogFile log;
    private final ReaderOptions options;
    private final Control control;

    private Reader(LogFile log, ReaderOptions options) {
        this.log = log;
        this.options = options;
        control = new Control(log, options.controlDir);
    }

    /**
     * Opens a log with the default options.
     *
     * @throws IOException as for {@link #open(Path, ReaderOptions)}
     */
    public static Reader open(Path path) throws IOException {
        return open(path, new ReaderOptions());
    }

    /**
     * Opens a log.
     *
     * @throws LogException.NotFound where there is none, in the time given by {@link ReaderOptions#waitForLog}
     * @throws LogException.NotALog for a directory or the like
     * @throws LogException.Damaged where its count cannot be true
     * @throws java.io.InterruptedIOException when the thread is interrupted while it waits for the log
     */
    public static Reader open(Path path, ReaderOptions options) throws IOException {
        LogFile log = LogFile.open(path, Tailer.nanos(options.waitForLog));
        try {
            log.count();
        } catch (IOException damaged) {
            log.close();
            throw damaged;
        }
        return new Reader(log, options);
    }

    /** The number of records that are published now. */
    public long count() throws IOException {
        return log.count();
    }

    /**
     * The payload of the record with this sequence.
     *
     * @return null where it is not published
     * @throws LogException.Damaged where the log cannot be what it says
     * @throws LogException.TooLarge beyond {@link ReaderOptions#maxRecord}
     */
    public byte[] get(long sequence) throws IOException {
        long count = log.count();
        if (sequence < 0 || sequence >= count) {
            return null;
        }
        Cursor cursor = new Cursor(log, options.maxRecord, Place.BEGINNING.later(Index.seek(log, sequence)));
        cursor.allow(count, log.size());
        while (cursor.sequence() < sequence) {
            cursor.pass();
        }
        return cursor.next().own();
    }

    /** Who is writing. */
    public synchronized WriterState writer() throws IOException {
        return control.writer(Place.BEGINNING);
    }

    /** A tailer that begins at {@code start}. It is to be read before this reader is closed. */
    public Tailer tail(Start start) throws IOException {
        long count = log.count();
        long first = start.first(count);
        long near = Math.min(first, count);
        Place from = Place.BEGINNING.later(Index.seek(log, near)).later(told(near));
        return new Tailer(log, options, from, first);
    }

    /** A tailer that begins with the first record. */
    public Tailer tail() throws IOException {
        return tail(Start.beginning());
    }

    /**
     * The end that the control page tells, if it is not behind record {@code sequence}. Only a page that may be followed is asked: the
     * log of a dead writer's may have been written anew.
     */
    private synchronized Place told(long sequence) throws IOException {
        ControlPage page = sequence == 0 ? null : control.toFollow(null);
        Place end = page == null ? null : page.pair();
        return end != null && end.sequence() <= sequence && end.position() >= LogFile.FIRST ? end : null;
    }

    @Override
    public void close() throws IOException {
        log.close();
    }
}
