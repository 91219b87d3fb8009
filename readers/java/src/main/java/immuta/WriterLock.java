package immuta;

import java.io.Closeable;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.stream.Stream;

/** Asks whether a writer holds its lock, which takes nothing: with fcntl where it can be called, else in /proc/locks. */
final class WriterLock implements Closeable {
    private static final long BYTE = Long.MAX_VALUE - 1;
    private static final String LOCKS = "/proc/locks";
    private static final Path MOUNTS = Path.of("/proc/self/mountinfo");

    private final LogFile.Identity identity;
    /** For fcntl; -1 where it cannot be called. */
    private int fd;
    /** The end of a line of /proc/locks that tells of the writer. */
    private String line;

    WriterLock(Path absolute, LogFile.Identity identity) {
        this.identity = identity;
        fd = Native.AVAILABLE ? Native.open(absolute.toString(), identity) : -1;
    }

    /** The number that stat(2) gives for a device. */
    static long device(long major, long minor) {
        return (major & 0xffff_f000L) << 32 | (major & 0xfffL) << 8 | (minor & 0xffff_ff00L) << 12 | minor & 0xffL;
    }

    synchronized boolean isHeld() throws IOException {
        if (fd >= 0) {
            Optional<Boolean> held = Native.isLocked(fd, BYTE);
            if (held.isPresent()) {
                return held.get();
            }
        }
        if (line == null) {
            line = end();
        }
        // "7: OFDLCK ADVISORY  WRITE -1 fe:00:1234 9223372036854775806 9223372036854775806"
        String locks;
        try (FileInputStream file = new FileInputStream(LOCKS)) {
            locks = new String(file.readAllBytes(), StandardCharsets.ISO_8859_1);
        }
        for (int at = locks.indexOf(line); at >= 0; at = locks.indexOf(line, at + 1)) {
            String lock = locks.substring(locks.lastIndexOf('\n', at) + 1, at);
            // An arrow stands before one who waits.
            if (lock.contains(" OFDLCK ") && lock.contains(" WRITE ") && !lock.contains("->")) {
                return true;
            }
        }
        return false;
    }

    /**
     * The kernel prints the device of the file system there. On some (btrfs) stat(2) gives another number, which no mount has:
     * then the inode has to do.
     */
    private String end() throws IOException {
        long major = identity.device() >>> 8 & 0xfff | identity.device() >>> 32 & 0xffff_f000L;
        long minor = identity.device() & 0xff | identity.device() >>> 12 & 0xffff_ff00L;
        String inodeAndByte = ":" + identity.inode() + " " + BYTE + " " + BYTE + "\n";
        String mount = " " + major + ":" + minor + " ";
        try (Stream<String> mounts = Files.lines(MOUNTS)) {
            return mounts.anyMatch(line -> line.contains(mount)) ? String.format(" %02x:%02x%s", major, minor, inodeAndByte) : inodeAndByte;
        }
    }

    @Override
    public synchronized void close() {
        if (fd >= 0) {
            Native.close(fd);
            fd = -1;
        }
    }
}
