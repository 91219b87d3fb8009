package immuta;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

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
    private final MappedByteBuffer page;
    /** Null where this process may not write to it. */
    private final MappedByteBuffer bell;

    private ControlPage(LogFile.Identity file, MappedByteBuffer page, MappedByteBuffer bell) {
        this.file = file;
        this.page = page;
        this.bell = bell;
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
        LogFile.Identity id = log.identity;
        LogFile.Identity[] file = new LogFile.Identity[1];
        MappedByteBuffer page = map(path, false, id.owner(), file);
        if (page == null || (long) LONG.getAcquire(page, MAGIC) != PAGE_MAGIC || BOOT == null) {
            return null;
        }
        long birth = page.getLong(BIRTH);
        boolean isOurs = page.getLong(VERSION) == 1 && page.getLong(PAGE_BYTES) == BYTES && page.getLong(DEVICE) == id.device()
            && page.getLong(INODE) == id.inode() && (birth == id.birthNanos() || birth == 0)
            && page.getLong(BOOT_ID) == BOOT[0] && page.getLong(BOOT_ID + 8) == BOOT[1];
        if (!isOurs) {
            return null;
        }
        MappedByteBuffer bell = null;
        if (Native.AVAILABLE) {
            // Who cannot sleep announces nothing: it would only cost the writer wake-ups.
            bell = map(path.resolveSibling(path.getFileName() + ".bell"), true, id.owner(), new LogFile.Identity[1]);
            boolean belongs = bell != null && (long) LONG.getAcquire(bell, MAGIC) == BELL_MAGIC && bell.getLong(VERSION) == 1
                && bell.getLong(BELL_EPOCH) == page.getLong(EPOCH);
            bell = belongs ? bell : null;
        }
        ControlPage opened = new ControlPage(file[0], page, bell);
        return opened.agrees(log) ? opened : null;
    }

    private static MappedByteBuffer map(Path path, boolean toWrite, int owner, LogFile.Identity[] file) {
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
                if (!file[0].isNamed(path, LinkOption.NOFOLLOW_LINKS) || channel.size() < BYTES) {
                    return null;
                }
                var mode = toWrite ? FileChannel.MapMode.READ_WRITE : FileChannel.MapMode.READ_ONLY;
                MappedByteBuffer map = channel.map(mode, 0, BYTES);
                map.order(ByteOrder.LITTLE_ENDIAN);
                return map;
            }
        } catch (IOException none) {
            return null;
        }
    }

    /** A page that says more than the file belongs to another history of it. The page is looked at first: the file is never behind it. */
    private boolean agrees(LogFile log) {
        try {
            Place pair = pair();
            long end = Math.max(end(), pair == null ? 0 : pair.position());
            return (pair == null || pair.sequence() >= 0 && pair.sequence() <= log.count()) && end() >= LogFile.FIRST
                && end <= Math.max(log.size(), LogFile.FIRST);
        } catch (IOException unknown) {
            return false;
        }
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
            int slot = SLOTS + SLOT_BYTES * (int) (event & 31);
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
