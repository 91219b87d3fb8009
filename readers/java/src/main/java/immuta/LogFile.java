package immuta;

import java.io.Closeable;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.RandomAccessFile;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * The file of a log, read through a descriptor and not through a mapping: in steps of 256 KiB that is faster than a mapping that faults, and
 * a program that cuts the file short cannot end this process. It is a RandomAccessFile because an interrupt closes a FileChannel.
 */
final class LogFile implements Closeable {
    /** The number of records, and nothing else, comes before the first record. */
    static final long FIRST = 8;

    private static final long LOOK_FOR_LOG_MILLIS = 10;
    /** After so many reads of the count no two of which were alike, it is loaded from a mapping. */
    private static final int READS_OF_COUNT = 64;
    private static final VarHandle BYTES = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    private static final VarHandle MAPPED = MethodHandles.byteBufferViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    /** Which file it is; {@code key} is device and inode once more, as the system gives them soonest. */
    record Identity(Object key, long device, long inode, long birthNanos, int owner, boolean isFile) {
        static Identity of(Path path, LinkOption... options) throws IOException {
            Map<String, Object> all = Files.readAttributes(path, "unix:fileKey,dev,ino,uid,isRegularFile,creationTime", options);
            long birth = ((FileTime) all.get("creationTime")).to(TimeUnit.NANOSECONDS);
            return new Identity(all.get("fileKey"), (Long) all.get("dev"), (Long) all.get("ino"), birth, (Integer) all.get("uid"),
                (Boolean) all.get("isRegularFile"));
        }

        /** Whether the name leads to this file now. */
        boolean isNamed(Path path, LinkOption... options) throws IOException {
            try {
                return key.equals(Files.readAttributes(path, BasicFileAttributes.class, options).fileKey());
            } catch (NoSuchFileException missing) {
                return false;
            }
        }
    }

    /** As it was given, for messages. */
    final Path path;
    final Identity identity;
    /** For the writer's lock. */
    final WriterLock lock;
    /** The same wherever the process goes. */
    private final Path absolute;
    private final RandomAccessFile file;
    private final byte[] number = new byte[8];
    /** A count that the file was large enough for; it stays so. */
    private long known;

    private LogFile(Path path, Identity identity, RandomAccessFile file) {
        this.path = path;
        this.identity = identity;
        this.file = file;
        absolute = path.toAbsolutePath();
        lock = new WriterLock(absolute, identity);
    }

    static LogFile open(Path path, long waitNanos) throws IOException {
        long begin = System.nanoTime();
        while (true) {
            try {
                return open(path);
            } catch (LogException.NotFound missing) {
                long left = waitNanos - (System.nanoTime() - begin);
                if (left <= 0) {
                    throw missing;
                }
                // A name that is not there yet can be watched only where its directory is there.
                sleep(Math.min(left, TimeUnit.MILLISECONDS.toNanos(LOOK_FOR_LOG_MILLIS)));
            }
        }
    }

    private static void sleep(long nanos) throws InterruptedIOException {
        try {
            TimeUnit.NANOSECONDS.sleep(nanos);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new InterruptedIOException("interrupted while waiting for the log to appear");
        }
    }

    private static LogFile open(Path path) throws IOException {
        while (true) {
            Identity identity;
            try {
                identity = Identity.of(path);
                if (!identity.isFile()) {
                    // Before it is opened: opening a pipe may wait for ever.
                    throw new LogException.NotALog(path, Files.isDirectory(path) ? "a directory" : "a device, pipe or socket");
                }
                RandomAccessFile file = new RandomAccessFile(path.toFile(), "r");
                if (identity.isNamed(path)) {
                    return new LogFile(path, identity, file);
                }
                file.close();
            } catch (NoSuchFileException missing) {
                throw new LogException.NotFound(path);
            } catch (FileNotFoundException refused) {
                if (Files.exists(path)) {
                    throw refused;
                }
            }
        }
    }

    /** Whether the name leads to another file now, or to none. Not to be let look, any more, is no proof of it. */
    boolean isReplaced() {
        try {
            return !identity.isNamed(absolute);
        } catch (IOException refused) {
            return false;
        }
    }

    /** Where the log's index would be: beside what its name leads to. */
    Path indexPath() throws IOException {
        Path real = absolute.toRealPath();
        return real.resolveSibling(real.getFileName() + ".idx");
    }

    long size() throws IOException {
        return file.length();
    }

    /** Fills as much of the array as the file has from {@code position} on; returns how much that is. */
    synchronized int read(long position, byte[] into, int length) throws IOException {
        file.seek(position);
        int filled = 0;
        while (filled < length) {
            int n = file.read(into, filled, length - filled);
            if (n < 0) {
                break;
            }
            filled += n;
        }
        return filled;
    }

    /**
     * The number of records that are published now.
     *
     * @throws LogException.Damaged where the file cannot hold so many
     */
    synchronized long count() throws IOException {
        long count = readCount();
        // A file that tells nothing new need not be asked twice.
        if (count == known) {
            return count;
        }
        count = storedCount(count);
        // What the number covers is read behind it.
        VarHandle.acquireFence();
        long bytes = size();
        if (count != 0 && Long.compareUnsigned(count, Math.max(0, bytes - FIRST) / 8) > 0) {
            throw new LogException.Damaged(path, 0,
                "the count says " + Long.toUnsignedString(count) + " records, and a file of " + bytes + " bytes cannot hold so many");
        }
        known = count;
        return count;
    }

    private long storedCount(long last) throws IOException {
        for (int n = 1;; n++) {
            // A read while the number is stored is not promised to be whole.
            long count = readCount();
            if (count == last) {
                return count;
            }
            last = count;
            if (n % READS_OF_COUNT == 0) {
                try (FileChannel channel = FileChannel.open(absolute, StandardOpenOption.READ)) {
                    if (!isReplaced()) {
                        return (long) MAPPED.getAcquire(channel.map(FileChannel.MapMode.READ_ONLY, 0, FIRST), 0);
                    }
                } catch (IOException refused) {
                    // Two reads will be alike sooner or later.
                }
            }
        }
    }

    private long readCount() throws IOException {
        int filled = read(0, number, number.length);
        if (filled == 0) {
            return 0;
        }
        if (filled < number.length) {
            throw new LogException.Damaged(path, 0, "the file has " + filled + " bytes, fewer than the 8 of the number of records");
        }
        return (long) BYTES.get(number, 0);
    }

    @Override
    public void close() throws IOException {
        lock.close();
        file.close();
    }
}
