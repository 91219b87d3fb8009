package immuta;

import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * A record. It stays as it is for as long as it is kept: no later call changes its bytes. A small record that is kept holds the
 * 256 KiB in memory that it was read with; {@link #bytes()} is a copy that does not.
 */
public final class Record {
    private final byte[] chunk;
    private final int offset;
    private final int size;
    private final long sequence;
    private final long position;

    Record(byte[] chunk, int offset, int size, long sequence, long position) {
        this.chunk = chunk;
        this.offset = offset;
        this.size = size;
        this.sequence = sequence;
        this.position = position;
    }

    /** How many records come before it. */
    public long sequence() {
        return sequence;
    }

    /** The offset of its size field in the log, in bytes. */
    public long position() {
        return position;
    }

    /** The size of its payload in bytes. */
    public int size() {
        return size;
    }

    /** What was appended, not copied: a new read-only buffer from position 0 to its limit. */
    public ByteBuffer payload() {
        return ByteBuffer.wrap(chunk, offset, size).slice().asReadOnlyBuffer();
    }

    /** A copy of what was appended. */
    public byte[] bytes() {
        return Arrays.copyOfRange(chunk, offset, offset + size);
    }

    /** The same for whoever keeps nothing else of it: without a copy where it was read alone. */
    byte[] own() {
        return size == chunk.length ? chunk : bytes();
    }

    @Override
    public String toString() {
        return "record " + sequence + " at position " + position + ", " + size + " bytes";
    }
}
