import immuta.Reader;
import immuta.ReaderOptions;
import immuta.Record;
import immuta.Start;
import immuta.Tailer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;

/** Follows a log, which may come later, across its writer's restarts until SIGINT: readers/java/run Consumer events.log */
public final class Consumer {
    public static void main(String[] args) throws Exception {
        ReaderOptions options = new ReaderOptions().waitForLog(Duration.ofSeconds(60));
        try (Reader reader = Reader.open(Path.of(args[0]), options); Tailer tailer = reader.tail(Start.beginning())) {
            Thread main = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                tailer.stop();
                try {
                    // The JVM ends with this thread, and not before the other has said how far it came.
                    main.join(1000);
                } catch (InterruptedException ended) {
                    main.interrupt();
                }
            }));
            for (Record record : tailer) {
                System.out.println(record.sequence() + " " + StandardCharsets.UTF_8.decode(record.payload()));
            }
            System.err.println("read up to record " + tailer.sequence() + "; the writer is " + tailer.writer());
        }
    }
}
