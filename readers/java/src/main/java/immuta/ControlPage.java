package immuta;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;

/** A control page that is believed, and its doorbell. */
final class ControlPage {
    static final long OPEN = 1;
    static final long CLOSED = 2;
    static final long FAILED = 3;

    private static final int BYTES = 4096;
    private static final int MAGIC = 0, VERSION = 8, PAGE_BYTES = 16, DEVICE = 24, INODE = 32, BIRTH = 40, BOOT_ID = 48, EPOCH = 80;
    private static final int STATE = 128, HEARTBEAT = 256, END = 384, COMMIT = 392, SLOTS = 512;
    private static final int BELL_EPOCH = 16, ANNOUNCED = 128;
    private static final long PAGE_MAGIC = magic("immutaCP"), BELL_MAGIC = magic("immutaDB");
    private static final int SLOT_BYTES = 32;
    /** So many events a slot is left alone. */
    private static final int SLOTS_KEPT = 31;
    private static final int TRIES = 1000;
    private static final long[] BOOT = bootId();

    /** With getAcquire, a load after which nothing is loaded that is older than what it saw: FORMAT.md's load and acquire fence. */
    private static final VarHandle LONG = MethodHandles.byteBufferViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private final LogFile.Identity file;
    private final Native.Mapping pageMapping;
    private final ByteBuffer page;
    /** Null where this process may not write to it. */
    private final Native.Mapping bellMapping;
    private final ByteBuffer bell;

    private ControlPage(LogFile.Identity file, Native.Mapping page, Native.Mapping bell) {
        this.file = file;
        pageMapping = page;
        this.page = page.bytes();
        bellMapping = bell;
        this.bell = bell == null ? null : bell.bytes();
    }

    /** Nothing of it may be asked any more. */
    void close() {
        pageMapping.close();
        if (bellMapping != null) {
            bellMapping.close();
        }
    }

    private static long magic(String text) {
        return ByteBuffer.wrap(text.getBytes(java.nio.charset.StandardCharsets.US_ASCII)).order(ByteOrder.LITTLE_ENDIAN).getLong();
    }

    private static long[] bootId() {
        try {
            String digits = Files.readString(Path.of("/proc/sys/kernel/random/boot_id")).strip().replace("-", "");
            return new long[] {Long.parseUnsignedLong(digits.substring(0, 16), 16), Long.parseUnsignedLong(digits.substring(16), 16)};
        } catch (IOException | RuntimeException unknown) {
            return null;
        }
    }

    static Path pathOf(Path dir, LogFile.Identity log) {
        return dir.resolve("immuta-" + Long.toUnsignedString(log.device()) + "-" + Long.toUnsignedString(log.inode()));
    }

    /** The page under this name if it can be believed, else null. */
    static ControlPage open(Path path, LogFile log) {
        int owner = log.identity.owner();
        LogFile.Identity[] file = new LogFile.Identity[1];
        Native.Mapping page = map(path, false, owner, file, bytes -> isOf(log, bytes));
        if (page == null) {
            return null;
        }
        Native.Mapping bell = null;
        if (Native.AVAILABLE) {
            // Who cannot sleep announces nothing: it would only cost the writer wake-ups.
            long epoch = page.bytes().getLong(EPOCH);
            bell = map(path.resolveSibling(path.getFileName() + ".bell"), true, owner, new LogFile.Identity[1],
                bytes -> begins(bytes, BELL_MAGIC) && bytes.getLong(BELL_EPOCH) == epoch);
        }
        return new ControlPage(file[0], page, bell);
    }

    private static boolean begins(ByteBuffer bytes, long magic) {
        boolean begins = bytes.getLong(MAGIC) == magic;
        // It is stored last.
        VarHandle.acquireFence();
        return begins && bytes.getLong(VERSION) == 1;
    }

    /** Whether it is this log's page. One that says more than the file belongs to another history of it. */
    private static boolean isOf(LogFile log, ByteBuffer bytes) {
        LogFile.Identity id = log.identity;
        if (BOOT == null || !begins(bytes, PAGE_MAGIC)) {
            return false;
        }
        long birth = bytes.getLong(BIRTH);
        boolean isOurs = bytes.getLong(PAGE_BYTES) == BYTES && bytes.getLong(DEVICE) == id.device()
            && bytes.getLong(INODE) == id.inode() && (birth == id.birthNanos() || birth == 0)
            && bytes.getLong(BOOT_ID) == BOOT[0] && bytes.getLong(BOOT_ID + 8) == BOOT[1];
        if (!isOurs) {
            return false;
        }
        long end = bytes.getLong(END);
        // Of whatever event the slot is by now: all that it ever says was counted before.
        int slot = slot(bytes.getLong(COMMIT));
        long count = bytes.getLong(slot + 8);
        long countEnd = bytes.getLong(slot + 16);
        // The page before the file, which is never behind it.
        VarHandle.acquireFence();
        try {
            return count >= 0 && count <= log.count() && end >= LogFile.FIRST && Math.max(end, countEnd) <= Math.max(log.size(), LogFile.FIRST);
        } catch (IOException unknown) {
            return false;
        }
    }

    private static int slot(long event) {
        return SLOTS + SLOT_BYTES * (int) (event & 31);
    }

    private static Native.Mapping map(Path path, boolean toWrite, int owner, LogFile.Identity[] file, Predicate<ByteBuffer> isRight) {
        try {
            file[0] = LogFile.Identity.of(path, LinkOption.NOFOLLOW_LINKS);
            if (!file[0].isFile() || file[0].owner() != owner && file[0].owner() != 0) {
                return null;
            }
            Set<OpenOption> options = new HashSet<>(List.of(StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS));
            if (toWrite) {
                options.add(StandardOpenOption.WRITE);
            }
            try (FileChannel channel = FileChannel.open(path, options)) {
                // A channel does not tell which file it has; the name does, if it is the same before and after.
                // What is refused is looked at again and again: it is read and not mapped, for a mapping may stay until the next garbage collection.
                if (!file[0].isNamed(path, LinkOption.NOFOLLOW_LINKS) || !isRight(channel, isRight)) {
                    return null;
                }
                Native.Mapping map = Native.map(channel, toWrite ? FileChannel.MapMode.READ_WRITE : FileChannel.MapMode.READ_ONLY, BYTES);
                // A read is not promised to be in order.
                if (isRight.test(map.bytes())) {
                    return map;
                }
                map.close();
                return null;
            }
        } catch (IOException none) {
            return null;
        }
    }

    private static boolean isRight(FileChannel channel, Predicate<ByteBuffer> isRight) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(BYTES).order(ByteOrder.LITTLE_ENDIAN);
        while (bytes.hasRemaining()) {
            if (channel.read(bytes, bytes.position()) < 0) {
                return false;
            }
        }
        return isRight.test(bytes);
    }

    /** Whether it still has the name. */
    boolean isNamed(Path path) {
        try {
            return file.isNamed(path, LinkOption.NOFOLLOW_LINKS);
        } catch (IOException none) {
            return false;
        }
    }

    /** Below this the log may be read. */
    long end() {
        return (long) LONG.getAcquire(page, END);
    }

    long state() {
        return (long) LONG.getAcquire(page, STATE);
    }

    long heartbeat() {
        return (long) LONG.getAcquire(page, HEARTBEAT);
    }

    private long commit() {
        return (long) LONG.getAcquire(page, COMMIT);
    }

    /** Count and end of one event; null where the writer is too fast to be seen standing. */
    Place pair() {
        for (int n = 0; n < TRIES; n++) {
            long event = commit();
            int slot = slot(event);
            long count = (long) LONG.getAcquire(page, slot + 8);
            long end = (long) LONG.getAcquire(page, slot + 16);
            if (commit() - event < SLOTS_KEPT) {
                return new Place(count, end);
            }
        }
        return null;
    }

    /** Whether a sleep on it is ended by its writer. */
    boolean canSleep() {
        return bell != null;
    }

    /**
     * Sleeps until the writer publishes something beyond {@code end}, or {@code sleep} is woken, or the time is over; at once where there is news.
     * The stores and loads are in the order that FORMAT.md gives; every one of them is needed.
     */
    void sleep(Native.Sleep sleep, long end, long nanos) {
        long event = commit();
        if (end() != end) {
            return;
        }
        for (long seen = (long) LONG.getVolatile(bell, ANNOUNCED); Long.compareUnsigned(seen, event + 1) < 0;) {
            long found = (long) LONG.compareAndExchange(bell, ANNOUNCED, seen, event + 1);
            if (found == seen) {
                break;
            }
            seen = found;
        }
        VarHandle.fullFence();
        if (commit() != event) {
            return;
        }
        // The low half comes first.
        long word = Native.address(page) + COMMIT;
        if (Native.WAITS_FOR_TWO) {
            sleep.waitForTwo(word, (int) event, nanos);
        } else {
            sleep.waitForOne(word, (int) event, nanos);
        }
    }
}
