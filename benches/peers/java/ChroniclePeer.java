import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;
import net.openhft.chronicle.wire.DocumentContext;
import org.HdrHistogram.Histogram;

/**
 * Chronicle Queue under the workload of src/work.rs: the same arguments, the same lines, the same payloads and checks. A tailer polls; it cannot sleep
 * until there is something. Before it says that it is ready, a process passes records through a queue of its own, so that what is measured is
 * compiled code.
 */
public final class ChroniclePeer {
    private static final long LAST = 1L << 63;
    /** What is due sooner after the first record is not counted, as in work.rs. */
    private static final long WARM_UP_NS = 100_000_000L;
    private static final double[] PERCENTILES = {10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100};
    private static final long WARM_RECORDS = 200_000;
    private static volatile boolean stopped;

    private final Map<String, String> args = new HashMap<>();
    private final int size;
    private final boolean crowded;

    private ChroniclePeer(String[] words) {
        for (int i = 1; i < words.length; i++) {
            String[] pair = words[i].split("=", 2);
            args.put(pair[0], pair[1]);
        }
        size = (int) number("size");
        crowded = Runtime.getRuntime().availableProcessors() < number("consumers") + 1;
    }

    public static void main(String[] words) throws Exception {
        ChroniclePeer peer = new ChroniclePeer(words);
        if (words[0].equals("produce")) {
            peer.produce();
        } else {
            peer.consume();
        }
        System.exit(0);
    }

    private double number(String key) {
        return Double.parseDouble(args.getOrDefault(key, "0"));
    }

    private Path dir() {
        return Path.of(args.get("dir"));
    }

    private static ChronicleQueue open(Path path) {
        return ChronicleQueue.singleBuilder(path.toFile()).build();
    }

    /** Passes records from itself to itself, by the code that is measured. */
    private void warm() throws Exception {
        Path path = dir().resolve("warm-" + ProcessHandle.current().pid());
        long records = Math.max(1000, Math.min(WARM_RECORDS, (64L << 20) / size));
        try (ChronicleQueue queue = open(path)) {
            Load load = new Load(size);
            ExcerptAppender appender = queue.createAppender();
            for (long n = 1; n <= records; n++) {
                send(appender, load.next(n % 2 == 0 ? System.nanoTime() : 0, n == records));
            }
            Seen seen = new Seen();
            ExcerptTailer tailer = queue.createTailer();
            while (!seen.ended()) {
                receive(tailer, seen);
            }
        }
        try (Stream<Path> files = Files.walk(path)) {
            files.sorted((a, b) -> b.compareTo(a)).forEach(file -> file.toFile().delete());
        }
    }

    private static void send(ExcerptAppender appender, Bytes<?> payload) {
        try (DocumentContext document = appender.writingDocument()) {
            document.wire().bytes().write(payload, 0L, payload.readLimit());
        }
    }

    private static boolean receive(ExcerptTailer tailer, Seen seen) {
        try (DocumentContext document = tailer.readingDocument()) {
            if (!document.isPresent()) {
                return false;
            }
            seen.take(document.wire().bytes());
            return true;
        }
    }

    private void produce() throws Exception {
        warm();
        try (ChronicleQueue queue = open(dir().resolve("queue"))) {
            ExcerptAppender appender = queue.createAppender();
            BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
            say("ready");
            input.readLine();
            watchForStop(input);
            Load load = new Load(size);
            double seconds = number("seconds");
            long rate = (long) number("rate");
            long most = Math.max(1, (long) number("bytes") / size);
            long processCpu = processCpu();
            long cpu = ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime();
            long first = System.nanoTime();
            if (rate == 0) {
                flatOut(appender, load, seconds, most);
            } else {
                paced(appender, load, seconds, most, rate);
            }
            cpu = ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime() - cpu;
            say(String.format("{\"sent\":%d,\"total\":%s,\"first_ns\":%d,\"end_ns\":%d,\"thread_cpu_ns\":%d,\"process_cpu_ns\":%d}", load.sent,
                Long.toUnsignedString(load.total), first, System.nanoTime(), cpu, processCpu() - processCpu));
            while (!stopped) {
                Thread.sleep(2);
            }
        }
    }

    private void flatOut(ExcerptAppender appender, Load load, double seconds, long most) {
        long deadline = System.nanoTime() + (long) (seconds * 1e9);
        long step = Math.max(1, Math.min(64, 65536 / size));
        for (boolean last = false; !last; ) {
            last = load.sent + 1 == most || (load.sent % step == step - 1 && System.nanoTime() > deadline);
            send(appender, load.next(0, last));
        }
    }

    private void paced(ExcerptAppender appender, Load load, double seconds, long most, long rate) {
        double interval = 1e9 / rate;
        long count = Math.max(1, Math.min(most, (long) (rate * seconds)));
        long begin = System.nanoTime() + 1_000_000;
        long deadline = begin + (long) (seconds * 2e9);
        long now = System.nanoTime();
        boolean last = false;
        for (long n = 0; !last; n++) {
            long due = begin + (long) (n * interval);
            while (now < due) {
                Thread.onSpinWait();
                now = System.nanoTime();
            }
            last = n + 1 == count || now > deadline;
            send(appender, load.next(due, last));
            now = System.nanoTime();
        }
    }

    private void consume() throws Exception {
        warm();
        try (ChronicleQueue queue = open(dir().resolve("queue"))) {
            ExcerptTailer tailer = queue.createTailer();
            Seen seen = new Seen();
            say("ready");
            watchForStop(new BufferedReader(new InputStreamReader(System.in)));
            int idle = 0;
            long cpu = processCpu();
            while (!seen.ended() && !stopped) {
                if (receive(tailer, seen)) {
                    idle = 0;
                } else if (crowded && ++idle > 64) {
                    Thread.yield();
                } else {
                    Thread.onSpinWait();
                }
            }
            StringBuilder late = new StringBuilder();
            for (double p : PERCENTILES) {
                if (seen.late.getTotalCount() > 0) {
                    String name = p == (long) p ? Long.toString((long) p) : Double.toString(p);
                    late.append(late.length() > 0 ? "," : "").append('"').append(name).append("\":").append(seen.late.getValueAtPercentile(p));
                }
            }
            say(String.format("{\"received\":%d,\"lost\":%d,\"disordered\":%d,\"total\":%s,\"ended_ns\":%d,\"process_cpu_ns\":%d,\"late_ns\":{%s}}",
                seen.received, seen.lost, seen.disordered, Long.toUnsignedString(seen.total), seen.endedNs, processCpu() - cpu, late));
        }
    }

    private static long processCpu() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static void watchForStop(BufferedReader input) {
        Thread thread = new Thread(() -> {
            try {
                while (input.readLine() != null) {
                    LockSupport.parkNanos(1);
                }
            } catch (java.io.IOException error) {
                // The same as its end.
            }
            stopped = true;
        });
        thread.setDaemon(true);
        thread.start();
    }

    /** The payload of the next record. */
    private static final class Load {
        final Bytes<?> bytes;
        final long rest;
        long sent;
        long total;

        Load(int size) {
            bytes = Bytes.allocateDirect(size);
            for (int i = 0; i < size; i++) {
                bytes.writeByte((byte) (i * 131 + 17));
            }
            long sum = 0;
            for (int i = 16; i < size; i += 8) {
                sum += bytes.readLong(i);
            }
            rest = sum;
        }

        Bytes<?> next(long due, boolean last) {
            long sequence = sent | (last ? LAST : 0);
            bytes.writeLong(0, due);
            bytes.writeLong(8, sequence);
            total += rest + due + sequence;
            sent++;
            return bytes;
        }
    }

    /** What a consumer has seen. */
    private static final class Seen {
        final Histogram late = new Histogram(1, 60_000_000_000L, 3);
        long expected;
        long received;
        long lost;
        long disordered;
        long total;
        long endedNs;
        long countedFrom;

        boolean ended() {
            return endedNs != 0;
        }

        void take(Bytes<?> bytes) {
            long at = bytes.readPosition();
            long end = bytes.readLimit();
            long due = bytes.readLong(at);
            long sequence = bytes.readLong(at + 8);
            if (due != 0 && expected == 0) {
                countedFrom = due + WARM_UP_NS;
            }
            if (due != 0 && due >= countedFrom) {
                late.recordValue(Math.min(Math.max(1, System.nanoTime() - due), 60_000_000_000L));
            }
            long sum = 0;
            for (; at + 8 <= end; at += 8) {
                sum += bytes.readLong(at);
            }
            total += sum;
            long number = sequence & ~LAST;
            if (number > expected) {
                lost += number - expected;
            } else if (number < expected) {
                disordered++;
            }
            expected = number + 1;
            received++;
            if (sequence < 0) {
                endedNs = System.nanoTime();
            }
        }
    }
}
