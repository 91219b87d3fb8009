package immuta;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.OptionalLong;

/** What can go wrong with a log. What the system refuses comes as its own {@link IOException}. */
public abstract sealed class LogException extends IOException {
    private static final long serialVersionUID = 1;

    private final transient Path path;
    private final long position;

    private LogException(Path path, long position, String message) {
        super(path + ": " + message);
        this.path = path;
        this.position = position;
    }

    /** The log that it is about, as it was named when it was opened. */
    public Path path() {
        return path;
    }

    /** The offset in the file that it is about, in bytes, where there is one. */
    public OptionalLong position() {
        return position < 0 ? OptionalLong.empty() : OptionalLong.of(position);
    }

    /** There is no file under this name. */
    public static final class NotFound extends LogException {
        private static final long serialVersionUID = 1;

        NotFound(Path path) {
            super(path, -1, "no such log (a writer creates it; ReaderOptions.waitForLog waits for it)");
        }
    }

    /** There is something under this name that cannot be a log. */
    public static final class NotALog extends LogException {
        private static final long serialVersionUID = 1;

        NotALog(Path path, String kind) {
            super(path, -1, "is " + kind + ", not a log (a log is an ordinary file)");
        }
    }

    /** The bytes of the file are not a log, or no longer one. The position is that of the field that cannot be true. */
    public static final class Damaged extends LogException {
        private static final long serialVersionUID = 1;

        private final long sequence;

        Damaged(Path path, long position, String wrong) {
            super(path, position, "damaged at position " + position + ": " + wrong);
            sequence = -1;
        }

        Damaged(Path path, long position, long sequence, String wrong) {
            super(path, position, "damaged at position " + position + ", record " + sequence + ": " + wrong);
            this.sequence = sequence;
        }

        /** The record in which the damage lies; none where it is the count that cannot be true. */
        public OptionalLong sequence() {
            return sequence < 0 ? OptionalLong.empty() : OptionalLong.of(sequence);
        }
    }

    /** A record is larger than {@link ReaderOptions#maxRecord}. */
    public static final class TooLarge extends LogException {
        private static final long serialVersionUID = 1;

        private final long sequence;

        TooLarge(Path path, long position, long sequence, long size, long max) {
            super(path, position, "record " + sequence + " at position " + position + " has " + size + " bytes, more than the " + max
                + " that this reader takes (raise ReaderOptions.maxRecord)");
            this.sequence = sequence;
        }

        /** The record's sequence. */
        public long sequence() {
            return sequence;
        }
    }

    /** The log was removed, or another file has taken its name; all that was readable has been delivered. */
    public static final class Replaced extends LogException {
        private static final long serialVersionUID = 1;

        Replaced(Path path) {
            super(path, -1, "the log was removed or replaced by another file while it was followed");
        }
    }

    /** Nothing came in the time that was given. */
    public static final class TimedOut extends LogException {
        private static final long serialVersionUID = 1;

        TimedOut(Path path, Duration limit) {
            super(path, -1, "nothing came within " + limit.toMillis() + " ms");
        }
    }
}
