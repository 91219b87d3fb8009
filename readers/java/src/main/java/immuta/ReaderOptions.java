package immuta;

import java.nio.file.Path;
import java.time.Duration;

/** How to open a log. A new one has the defaults; each method changes it and returns it. */
public final class ReaderOptions {
    /** A Java array has no more elements. */
    private static final long ARRAY_MOST = Integer.MAX_VALUE - 8;

    Duration waitForLog = Duration.ZERO;
    long maxRecord = 1L << 30;
    Path controlDir;

    /** The defaults. */
    public ReaderOptions() {
        String named = System.getenv("IMMUTA_CONTROL_DIR");
        controlDir = Path.of(named == null || named.isEmpty() ? "/dev/shm" : named);
    }

    /** Waits this long for the log to appear (default: not at all). */
    public ReaderOptions waitForLog(Duration limit) {
        waitForLog = limit;
        return this;
    }

    /** The largest payload that is taken, in bytes (default 1 GiB, at most 2 GiB less 9 bytes). */
    public ReaderOptions maxRecord(long bytes) {
        if (bytes < 0) {
            throw new IllegalArgumentException("a size is 0 or more, not " + bytes);
        }
        maxRecord = Math.min(bytes, ARRAY_MOST);
        return this;
    }

    /** The directory of the control page (default: the environment variable IMMUTA_CONTROL_DIR, else /dev/shm). */
    public ReaderOptions controlDir(Path dir) {
        controlDir = dir;
        return this;
    }
}
