import immuta.LogException;
import immuta.Reader;
import immuta.ReaderOptions;
import immuta.Record;
import immuta.Start;
import immuta.Tailer;
import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.zip.CRC32;

/** Prints {@code sequence size crc32} of each record; what spec/vectors/run compares. */
public final class Follow {
    private static final String USAGE = "usage: follow LOG [--skip N] [--count N] [--timeout SECONDS]";
    private static final byte[] DIGITS = "0123456789abcdef".getBytes(StandardCharsets.US_ASCII);

    private Path path;
    private long skip;
    private long count = Long.MAX_VALUE;
    private Duration timeout;

    /** What is asked for, or null where that cannot be understood. */
    private static Follow parse(String[] args) {
        Follow asked = new Follow();
        Iterator<String> rest = List.of(args).iterator();
        try {
            while (rest.hasNext()) {
                String arg = rest.next();
                switch (arg) {
                    case "--skip" -> asked.skip = number(rest.next());
                    case "--count" -> asked.count = number(rest.next());
                    case "--timeout" -> asked.timeout = seconds(rest.next());
                    default -> {
                        if (asked.path != null || arg.startsWith("--")) {
                            return null;
                        }
                        asked.path = Path.of(arg);
                    }
                }
            }
        } catch (IllegalArgumentException | NoSuchElementException wrong) {
            return null;
        }
        return asked.path == null ? null : asked;
    }

    private static long number(String text) {
        long number = Long.parseUnsignedLong(text);
        // No file has so many records that the difference shows.
        return number < 0 ? Long.MAX_VALUE : number;
    }

    private static Duration seconds(String text) {
        double seconds = Double.parseDouble(text);
        if (!(seconds >= 0)) {
            throw new IllegalArgumentException(text);
        }
        return Duration.ofNanos((long) (seconds * 1e9));
    }

    private void run(Output out) throws IOException, InterruptedException {
        if (count == 0) {
            return;
        }
        ReaderOptions options = new ReaderOptions();
        if (timeout != null) {
            options.waitForLog(timeout);
        }
        try (Reader reader = Reader.open(path, options); Tailer tailer = reader.tail(Start.skip(skip))) {
            for (long n = 0; n < count; n++) {
                Record record = tailer.tryNext();
                if (record == null) {
                    // Whoever reads this may wait for what was printed.
                    out.flush();
                    record = timeout == null ? tailer.next() : tailer.nextTimeout(timeout);
                }
                out.print(record);
            }
        }
    }

    /** Standard output, of which it is known when it fails. */
    private static final class Output {
        private final OutputStream out = new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16);
        private final byte[] line = new byte[64];
        private final CRC32 crc = new CRC32();
        private boolean failed;

        void print(Record record) throws IOException {
            crc.reset();
            crc.update(record.payload());
            int at = line.length;
            line[--at] = '\n';
            for (long left = crc.getValue(), n = 0; n < 8; n++, left >>>= 4) {
                line[--at] = DIGITS[(int) (left & 15)];
            }
            line[--at] = ' ';
            at = number(record.size(), at);
            line[--at] = ' ';
            at = number(record.sequence(), at);
            failed = true;
            out.write(line, at, line.length - at);
            failed = false;
        }

        private int number(long number, int end) {
            int at = end;
            do {
                line[--at] = DIGITS[(int) (number % 10)];
                number /= 10;
            } while (number > 0);
            return at;
        }

        void flush() throws IOException {
            failed = true;
            out.flush();
            failed = false;
        }
    }

    private static int code(IOException error) {
        if (error instanceof LogException.NotFound || error instanceof LogException.Replaced) {
            return 3;
        }
        return error instanceof LogException.Damaged ? 5 : error instanceof LogException.TimedOut ? 6 : 1;
    }

    private static int run(Follow asked) throws InterruptedException {
        Output out = new Output();
        int code = 0;
        try {
            try {
                asked.run(out);
            } catch (IOException error) {
                if (out.failed) {
                    throw error;
                }
                System.err.println("follow: " + error.getMessage());
                code = code(error);
            }
            // What came before an error, too.
            out.flush();
            return code;
        } catch (IOException error) {
            // A reader that has seen enough, such as head, is no failure.
            if ("Broken pipe".equals(error.getMessage())) {
                return 0;
            }
            System.err.println("follow: cannot write to standard output: " + error.getMessage());
            return 1;
        }
    }

    public static void main(String[] args) throws InterruptedException {
        Follow asked = parse(args);
        if (asked == null) {
            System.err.println(USAGE);
            System.exit(2);
        }
        System.exit(run(asked));
    }
}
