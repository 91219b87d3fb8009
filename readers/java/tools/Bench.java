import immuta.Reader;
import immuta.Record;
import immuta.Start;
import immuta.Tailer;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Locale;

/** Reads a log to its end in three ways, and prints what each took, best of three. */
public final class Bench {
    private static final int RUNS = 3;

    private interface Way {
        /** Records, and bytes of payload, or of the file where it knows no records. */
        long[] read(Path log) throws IOException, InterruptedException;
    }

    private static long[] next(Path log) throws IOException, InterruptedException {
        try (Reader reader = Reader.open(log); Tailer tailer = reader.tail(Start.beginning())) {
            long count = reader.count();
            long bytes = 0;
            for (long n = 0; n < count; n++) {
                ByteBuffer payload = tailer.next().payload();
                bytes += payload.remaining();
            }
            return new long[] {count, bytes};
        }
    }

    private static long[] nextBatch(Path log) throws IOException, InterruptedException {
        try (Reader reader = Reader.open(log); Tailer tailer = reader.tail(Start.beginning())) {
            long count = reader.count();
            long bytes = 0;
            for (long n = 0; n < count;) {
                for (Record record : tailer.nextBatch(1000)) {
                    bytes += record.payload().remaining();
                    n++;
                }
            }
            return new long[] {count, bytes};
        }
    }

    private static long[] read(Path log) throws IOException {
        try (FileInputStream file = new FileInputStream(log.toFile())) {
            byte[] piece = new byte[1 << 20];
            long bytes = 0;
            for (int n; (n = file.read(piece)) > 0;) {
                bytes += n;
            }
            return new long[] {0, bytes};
        }
    }

    private static void measure(String name, Path log, Way way) throws IOException, InterruptedException {
        double best = Double.MAX_VALUE;
        long[] read = null;
        for (int n = 0; n < RUNS; n++) {
            long begin = System.nanoTime();
            read = way.read(log);
            best = Math.min(best, (System.nanoTime() - begin) / 1e9);
        }
        System.out.printf(Locale.ROOT, "{\"language\": \"java\", \"way\": \"%s\", \"records\": %d, \"bytes\": %d, \"seconds\": %.4f}%n",
            name, read[0], read[1], best);
    }

    public static void main(String[] args) throws IOException, InterruptedException {
        if (args.length != 1) {
            System.err.println("usage: bench LOG");
            System.exit(2);
        }
        Path log = Path.of(args[0]);
        // Into the page cache, which is what is measured.
        read(log);
        measure("next", log, Bench::next);
        measure("next_batch", log, Bench::nextBatch);
        measure("read", log, Bench::read);
    }
}
