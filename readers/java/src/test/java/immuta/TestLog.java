package immuta;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Comparator;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import java.util.zip.CRC32C;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.Assumptions;

/** A log, its control page and its index, made from FORMAT.md and not with the reader's own code. */
final class TestLog implements AutoCloseable {
    /** Takes the writer's locks, says so, and holds them until its input ends or it is killed. Java has no such locks. */
    private static final String WRITER = """
        import fcntl, struct, sys
        file = open(sys.argv[1], "r+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2**63 - 2, 1, 0))
        print("locked", flush=True)
        sys.stdin.read()
        """;

    final Path dir;
    final Path path;
    final Path control;
    private long count;
    private long end = 8;
    private Process writer;

    TestLog() {
        try {
            dir = Files.createTempDirectory("immuta-java-");
            path = dir.resolve("log");
            control = Files.createDirectory(dir.resolve("control"));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static TestLog of(byte[]... payloads) throws IOException {
        TestLog log = new TestLog();
        log.append(payloads);
        return log;
    }

    /** Bytes that tell records apart. */
    static byte[] payload(int n, int size) {
        byte[] bytes = new byte[size];
        for (int at = 0; at < size; at++) {
            bytes[at] = (byte) (n * 31 + at % 251);
        }
        return bytes;
    }

    static byte[] text(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] numbers(long... numbers) {
        ByteBuffer bytes = ByteBuffer.allocate(8 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
        for (long number : numbers) {
            bytes.putLong(number);
        }
        return bytes.array();
    }

    static TestLog raw(byte[]... pieces) throws IOException {
        TestLog log = new TestLog();
        try (RandomAccessFile file = new RandomAccessFile(log.path.toFile(), "rw")) {
            for (byte[] piece : pieces) {
                file.write(piece);
            }
        }
        return log;
    }

    long count() {
        return count;
    }

    long end() {
        return end;
    }

    void write(long position, byte[] bytes) throws IOException {
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.seek(position);
            file.write(bytes);
        }
    }

    /** Writes records behind the last one, uncounted. */
    void place(byte[]... payloads) throws IOException {
        for (byte[] payload : payloads) {
            write(end, numbers(payload.length));
            write(end + 8, payload);
            end += 8 + payload.length;
            count++;
        }
    }

    void storeCount() throws IOException {
        write(0, numbers(count));
    }

    void append(byte[]... payloads) throws IOException {
        place(payloads);
        storeCount();
    }

    /** Cuts all off, in the same file. */
    void empty() throws IOException {
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            file.setLength(0);
        }
        count = 0;
        end = 8;
    }

    ReaderOptions options() {
        return new ReaderOptions().controlDir(control);
    }

    Reader reader() throws IOException {
        return Reader.open(path, options());
    }

    /** Another process holds the writer's lock from here on. */
    void lock() throws IOException {
        try {
            writer = new ProcessBuilder("python3", "-c", WRITER, path.toString()).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        } catch (IOException none) {
            boolean required = "1".equals(System.getenv("IMMUTA_REQUIRE_LANGUAGES"));
            Assertions.assertFalse(required, "python3, which holds the locks, is missing");
            Assumptions.abort("SKIPPED: python3, which holds the locks, is missing");
        }
        BufferedReader said = new BufferedReader(new InputStreamReader(writer.getInputStream(), StandardCharsets.UTF_8));
        Assertions.assertEquals("locked", said.readLine());
    }

    void unlock() throws InterruptedException {
        writer.destroyForcibly();
        Assertions.assertTrue(writer.waitFor(10, TimeUnit.SECONDS));
    }

    /** Its control page, as of now. */
    Page page() throws IOException {
        return new Page(1);
    }

    Page page(long epoch) throws IOException {
        return new Page(epoch);
    }

    /** A page and its doorbell, in place; the heartbeat is of now. */
    final class Page {
        static final int VERSION = 8, PAGE_BYTES = 16, DEVICE = 24, INODE = 32, BIRTH = 40, BOOT_ID = 48, EPOCH = 80, STATE = 128,
            HEARTBEAT = 256, END = 384, COMMIT = 392, SLOTS = 512;
        final Path path;
        final MappedByteBuffer page;
        final MappedByteBuffer bell;

        private Page(long epoch) throws IOException {
            long device = (Long) Files.getAttribute(TestLog.this.path, "unix:dev");
            long inode = (Long) Files.getAttribute(TestLog.this.path, "unix:ino");
            path = control.resolve("immuta-" + device + "-" + inode);
            Path bellPath = control.resolve(path.getFileName() + ".bell");
            bell = file(Path.of(bellPath + ".new"));
            bell.putLong(8, 1).putLong(16, epoch).put(0, text("immutaDB"));
            page = file(Path.of(path + ".new"));
            String boot = Files.readString(Path.of("/proc/sys/kernel/random/boot_id")).strip().replace("-", "");
            String[] birth = told("stat", "-c", "%.9W", TestLog.this.path.toString()).strip().split("\\.");
            page.putLong(VERSION, 1).putLong(PAGE_BYTES, 4096).putLong(DEVICE, device).putLong(INODE, inode);
            page.putLong(BIRTH, Long.parseLong(birth[0]) * 1_000_000_000 + Long.parseLong(birth[1]));
            page.putLong(BOOT_ID, Long.parseUnsignedLong(boot.substring(0, 16), 16));
            page.putLong(BOOT_ID + 8, Long.parseUnsignedLong(boot.substring(16), 16));
            page.putLong(EPOCH, epoch).putLong(STATE, 1).putLong(SLOTS + 8, count).putLong(SLOTS + 16, end).putLong(END, end);
            beat();
            page.put(0, text("immutaCP"));
            Files.move(Path.of(bellPath + ".new"), bellPath, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            Files.move(Path.of(path + ".new"), path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        }

        private MappedByteBuffer file(Path path) throws IOException {
            try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
                file.setLength(4096);
                MappedByteBuffer map = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 4096);
                map.order(ByteOrder.LITTLE_ENDIAN);
                return map;
            }
        }

        void beat() {
            page.putLong(HEARTBEAT, System.nanoTime());
        }

        /** Tells what is placed now, or another state, and wakes who sleeps where that can be. The count is not stored. */
        void publish(long state) {
            long event = page.getLong(COMMIT) + 1;
            int slot = SLOTS + 32 * (int) (event % 32);
            page.putLong(slot + 8, count).putLong(slot + 16, end);
            java.lang.invoke.VarHandle.fullFence();
            page.putLong(END, end).putLong(STATE, state);
            java.lang.invoke.VarHandle.fullFence();
            page.putLong(COMMIT, event);
            java.lang.invoke.VarHandle.fullFence();
            if (Native.AVAILABLE) {
                Native.call(Native.FUTEX, Native.address(page) + COMMIT, 1, Integer.MAX_VALUE, 0, 0, 0);
            }
        }

        void publish() {
            publish(1);
        }

        long announced() {
            return bell.getLong(128);
        }

        void remove() throws IOException {
            Files.delete(path);
            Files.delete(Path.of(path + ".bell"));
        }
    }

    static String told(String... command) throws IOException {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }

    /** Pieces of an index: 8 numbers each, of which the last has the kind and the checksum in it. */
    final class Pieces {
        private final ByteBuffer bytes = ByteBuffer.allocate(1 << 16).order(ByteOrder.LITTLE_ENDIAN);

        Pieces header(long inode, long birth) {
            int at = bytes.position();
            bytes.put(text("immutaIX")).putLong(1).putLong(5).putLong(6).putLong(inode).putLong(birth).putLong(7).putInt(0);
            return seal(at);
        }

        Pieces header() throws IOException {
            LogFile.Identity identity = LogFile.Identity.of(path);
            return header(identity.inode(), identity.birthNanos());
        }

        Pieces entry(long sequence, long position, long length, long records, int kind, int crc) {
            int at = bytes.position();
            bytes.putLong(sequence).putLong(position).putLong(length).putLong(records).putLong(9).putInt(kind).putInt(crc).putLong(0).putInt(0);
            return seal(at);
        }

        /** A block with the true checksum. */
        Pieces block(long sequence, long position, long length, long records) throws IOException {
            byte[] log = Files.readAllBytes(path);
            CRC32C crc = new CRC32C();
            crc.update(log, (int) position, (int) length);
            return entry(sequence, position, length, records, 1, (int) crc.getValue());
        }

        private Pieces seal(int at) {
            CRC32C crc = new CRC32C();
            crc.update(bytes.array(), at, 60);
            bytes.putInt((int) crc.getValue());
            return this;
        }

        void write() throws IOException {
            Files.write(Path.of(path + ".idx"), java.util.Arrays.copyOf(bytes.array(), bytes.position()));
        }
    }

    @Override
    public void close() throws IOException {
        if (writer != null) {
            writer.destroyForcibly();
        }
        try (Stream<Path> all = Files.walk(dir)) {
            for (Path entry : all.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(entry);
            }
        }
    }
}
