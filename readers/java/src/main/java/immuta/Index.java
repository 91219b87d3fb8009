package immuta;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.zip.CRC32C;

/** Finds a place in a log by its index, where that is there and true; else a reader walks. */
final class Index {
    private static final int PIECE = 64;
    private static final int CHECKED = 60;
    private static final int STEP = 64 << 10;
    private static final int BLOCK = 1;
    /** So many blocks that are not true are taken for an index that is another log's. */
    private static final int LIES_MOST = 16;
    /** So many pieces a search reads at most: one in order needs few, and in one that is not to walk costs less. */
    private static final int PIECES_MOST = 4096;
    private static final long MAGIC =
        ByteBuffer.wrap("immutaIX".getBytes(StandardCharsets.US_ASCII)).order(ByteOrder.LITTLE_ENDIAN).getLong();

    private record Entry(long sequence, long position, long length, long records, int kind, int crc) {
        boolean isBlock() {
            return (kind & 0xff) == BLOCK && records > 0;
        }

        Place end() {
            return new Place(sequence + records, position + length);
        }
    }

    private final FileChannel file;
    private final LogFile log;
    /** Pieces that this search may still read. */
    private int left = PIECES_MOST;
    private final ByteBuffer piece = ByteBuffer.allocate(PIECE).order(ByteOrder.LITTLE_ENDIAN);

    private Index(FileChannel file, LogFile log) {
        this.file = file;
        this.log = log;
    }

    /** A place at or before record {@code sequence}, of which there are as many in the log or more; null where the index tells none. */
    static Place seek(LogFile log, long sequence) {
        if (sequence == 0) {
            return null;
        }
        try {
            Path path = log.indexPath();
            // Before it is opened: opening a pipe may wait for ever.
            if (!Files.isRegularFile(path)) {
                return null;
            }
            try (FileChannel file = FileChannel.open(path, StandardOpenOption.READ)) {
                return new Index(file, log).seek(sequence);
            }
        } catch (IOException unreadable) {
            return null;
        }
    }

    private Place seek(long sequence) throws IOException {
        if (!isOurs()) {
            return null;
        }
        // The first entry of those between `low` and `high` that begins behind the record.
        long low = 1;
        long high = file.size() / PIECE;
        while (low < high) {
            long middle = (low + high) >>> 1;
            long at = middle;
            Entry entry = read(at);
            while (entry == null && at > low && left > 0) {
                entry = read(--at);
            }
            if (entry == null || entry.sequence <= sequence) {
                low = middle + 1;
            } else {
                high = at;
            }
        }
        int lies = 0;
        for (long at = low - 1; at > 0 && lies < LIES_MOST && left > 0; at--) {
            Entry entry = read(at);
            // An entry without records has nothing by which its place could be checked; the block before it ends there.
            if (entry == null || !entry.isBlock() || entry.sequence > sequence) {
                continue;
            }
            if (isTrue(entry)) {
                boolean isBehind = entry.records <= sequence - entry.sequence;
                return isBehind ? entry.end() : new Place(entry.sequence, entry.position);
            }
            lies++;
        }
        return null;
    }

    private boolean isOurs() throws IOException {
        if (!fill(0) || piece.getLong(0) != MAGIC || piece.getLong(8) != 1) {
            return false;
        }
        long birth = piece.getLong(40);
        return piece.getLong(32) == log.identity.inode() && (birth == 0 || birth == log.identity.birthNanos());
    }

    private boolean fill(long at) throws IOException {
        piece.clear();
        while (piece.hasRemaining()) {
            if (file.read(piece, at * PIECE + piece.position()) < 0) {
                return false;
            }
        }
        CRC32C crc = new CRC32C();
        crc.update(piece.array(), 0, CHECKED);
        return (int) crc.getValue() == piece.getInt(CHECKED);
    }

    private Entry read(long at) throws IOException {
        left--;
        return fill(at)
            ? new Entry(piece.getLong(0), piece.getLong(8), piece.getLong(16), piece.getLong(24), piece.getInt(40), piece.getInt(44))
            : null;
    }

    /** Whether the log has at this place what the entry says: it may be another history's. */
    private boolean isTrue(Entry entry) throws IOException {
        long bytes = log.size();
        boolean lies = entry.sequence < 0 || entry.position < LogFile.FIRST || entry.position > bytes
            || entry.length < 8 || entry.length > bytes - entry.position || entry.records > entry.length / 8;
        if (lies || entry.sequence > log.count() - entry.records) {
            return false;
        }
        byte[] data = new byte[(int) Math.min(STEP, entry.length)];
        if (entry.records == 1) {
            // A block of one record may be a large one.
            return log.read(entry.position, data, 8) == 8
                && ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).getLong() == entry.length - 8;
        }
        CRC32C crc = new CRC32C();
        for (long done = 0; done < entry.length;) {
            int length = (int) Math.min(data.length, entry.length - done);
            if (log.read(entry.position + done, data, length) < length) {
                return false;
            }
            crc.update(data, 0, length);
            done += length;
        }
        return (int) crc.getValue() == entry.crc;
    }
}
