package immuta;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** Goes from record to record through what may be read. */
final class Cursor {
    /** As a count: the end alone says what may be read. */
    static final long ALL = Long.MAX_VALUE;

    /** From here on larger steps are no faster, and arrays of half a megabyte are hard work for a garbage collector. */
    private static final int CHUNK = 256 << 10;
    private static final int PAGE = 4 << 10;
    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private final LogFile file;
    private final long maxRecord;
    /** Of the next record. */
    private long sequence;
    private long position;
    /** Bytes of the file, of which {@code chunk[at]} lies at {@code position}. A new array each time: records refer to it. */
    private byte[] chunk = new byte[0];
    private int at;
    private int filled;
    /** Records below the first and bytes below the second may be read. */
    private long count;
    private long end;

    Cursor(LogFile file, long maxRecord, Place from) {
        this.file = file;
        this.maxRecord = maxRecord;
        sequence = from.sequence();
        position = from.position();
        end = position;
    }

    long sequence() {
        return sequence;
    }

    long position() {
        return position;
    }

    long end() {
        return end;
    }

    /** Whether the end alone says what may be read. */
    boolean isByEnd() {
        return count == ALL;
    }

    Place place() {
        return new Place(sequence, position);
    }

    /** Lets it read records below {@code count} (or {@link #ALL}), which lie below {@code end}. */
    void allow(long count, long end) {
        if (this.count != ALL) {
            // Bytes that were read before the number that covers them may have changed.
            forget();
        }
        this.count = count;
        this.end = end;
    }

    private void forget() {
        at = 0;
        filled = 0;
    }

    /** The next record if it is in memory, else null. */
    Record fromMemory() {
        int from = at;
        int room = filled - from - 8;
        if (room < 0 || sequence >= count) {
            return null;
        }
        long size = (long) LONG.get(chunk, from);
        // Sizes are unsigned: what is below 0 is too large for this.
        if (size < 0 || size > room || size > maxRecord) {
            return null;
        }
        Record record = new Record(chunk, from + 8, (int) size, sequence, position);
        step(from + 8 + (int) size, size);
        return record;
    }

    private void step(int at, long size) {
        this.at = at;
        sequence++;
        position += 8 + size;
    }

    /** The next record, or null where there is none. */
    Record next() throws IOException {
        Record record = fromMemory();
        if (record != null) {
            return record;
        }
        if (!isThere()) {
            return null;
        }
        long size = size();
        if (size > maxRecord) {
            throw new LogException.TooLarge(file.path, position, sequence, size, maxRecord);
        }
        if (size <= CHUNK - 8) {
            if (size > filled - at - 8) {
                fill((int) size + 8);
            }
            return fromMemory();
        }
        // An array of its own, made only now that it is known that so many bytes are published, and that the file has them.
        long bytes = file.size();
        if (bytes - position - 8 < size) {
            throw cutShort(bytes);
        }
        byte[] payload = new byte[(int) size];
        int read = file.read(position + 8, payload, payload.length);
        if (read < payload.length) {
            throw cutShort(position + 8 + read);
        }
        record = new Record(payload, 0, payload.length, sequence, position);
        forget();
        step(0, size);
        return record;
    }

    /** Goes behind the next record, whatever its size; false where there is none. */
    boolean pass() throws IOException {
        if (!isThere()) {
            return false;
        }
        long size = size();
        if (size <= filled - at - 8) {
            step(at + 8 + (int) size, size);
        } else {
            forget();
            step(0, size);
        }
        return true;
    }

    private boolean isThere() {
        // The page may tell less than the count told before: nothing is there then.
        return count == ALL ? position < end : sequence < count;
    }

    /** The size of the next record, which lies below the end. */
    private long size() throws IOException {
        if (end - position < 8) {
            throw new LogException.Damaged(file.path, position, sequence,
                "a record begins here, but the log ends at " + end + (end > position ? ", within its size field" : ""));
        }
        if (filled - at < 8) {
            fill(8);
        }
        long size = (long) LONG.get(chunk, at);
        // Compared so that no sum can overflow.
        if (size < 0 || size > end - position - 8) {
            throw new LogException.Damaged(file.path, position, sequence,
                "a record of " + Long.toUnsignedString(size) + " bytes begins here, but the log ends at " + end);
        }
        return size;
    }

    /** Reads from the position on, {@code needed} bytes or more. */
    private void fill(int needed) throws IOException {
        long useful = CHUNK;
        if (count != ALL) {
            // The file may go on with much that is not published.
            useful = Math.min(CHUNK, Math.max(1, Math.min(count - sequence, CHUNK / PAGE)) * PAGE);
        }
        int length = (int) Math.min(Math.max(useful, needed), end - position);
        byte[] bytes = new byte[length];
        int read = file.read(position, bytes, length);
        if (read < needed) {
            throw cutShort(position + read);
        }
        chunk = bytes;
        at = 0;
        filled = read;
    }

    private LogException cutShort(long there) {
        return new LogException.Damaged(file.path, position, sequence, "a record begins here, but the file was cut at " + there);
    }
}
