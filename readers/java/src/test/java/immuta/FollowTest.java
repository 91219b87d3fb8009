package immuta;

import static immuta.TestLog.numbers;
import static immuta.TestLog.text;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The program {@code follow}: what it prints, and how it ends. */
@Timeout(120)
class FollowTest {
    private static final String LINES = "0 1 e8b7be43\n1 0 00000000\n2 9 cbf43926\n";

    private static Process start(TestLog log, String... options) throws IOException {
        List<String> command = new ArrayList<>(List.of("./follow", log.path.toString()));
        command.addAll(List.of(options));
        return run(log, command);
    }

    private static Process run(TestLog log, List<String> command) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command);
        builder.environment().put("IMMUTA_CONTROL_DIR", log.control.toString());
        // With the JVM that is tested.
        builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
        return builder.start();
    }

    private static void ends(int code, String out, String err, Process process) throws Exception {
        String told = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        String said = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
        assertTrue(process.waitFor(60, TimeUnit.SECONDS));
        assertEquals(out, told, said);
        assertEquals(code, process.exitValue(), said);
        assertTrue(said.contains(err), said);
    }

    private static TestLog log() throws IOException {
        return TestLog.of(text("a"), text(""), text("123456789"));
    }

    @Test
    void endsAsItIsTold() throws Exception {
        try (TestLog log = log()) {
            ends(0, LINES.substring(0, 13), "", start(log, "--count", "1"));
            ends(0, LINES, "", start(log, "--count", "3"));
            ends(0, "1 0 00000000\n", "", start(log, "--skip", "1", "--count", "1"));
            ends(0, "", "", start(log, "--count", "0"));
            ends(6, LINES, "nothing came", start(log, "--timeout", "0.05"));
            for (String[] wrong : new String[][] {{"--count"}, {"--count", "-1"}, {"--skip", "x"}, {"--timeout", "-1"}, {"--timeout", "nan"}, {"x"}}) {
                ends(2, "", "usage", start(log, wrong));
            }
            Files.delete(log.path);
            ends(3, "", log.path.toString(), start(log));
            Files.createDirectory(log.path);
            ends(1, "", "a directory", start(log));
        }
        try (TestLog log = TestLog.raw(numbers(2, 1), text("a"), numbers(-1))) {
            ends(5, "0 1 e8b7be43\n", log.path + ": damaged at position 17, record 1", start(log));
        }
    }

    @Test
    void optionsMayComeFirst() throws Exception {
        try (TestLog log = log()) {
            String path = log.path.toString();
            ends(0, LINES.substring(0, 13), "", run(log, List.of("./follow", "--count", "1", path)));
            ends(0, "1 0 00000000\n", "", run(log, List.of("./follow", "--skip", "1", path, "--count", "1")));
            ends(2, "", "usage", run(log, List.of("./follow", "--count", "1")));
            ends(2, "", "usage", run(log, List.of("./follow")));
        }
    }

    /** No log has so many records; one may wait for them. */
    @Test
    void aNumberMayHave64Bits() throws Exception {
        try (TestLog log = log()) {
            ends(6, "", "nothing came", start(log, "--skip", "18446744073709551615", "--timeout", "0.05"));
            ends(6, LINES, "nothing came", start(log, "--count", "18446744073709551615", "--timeout", "0.05"));
            ends(2, "", "usage", start(log, "--skip", "18446744073709551616"));
        }
    }

    @Test
    void aStandardOutputThatIsNotOpenIsAnError() throws Exception {
        try (TestLog log = log()) {
            ends(1, "", "standard output", run(log, List.of("sh", "-c", "exec ./follow \"$1\" --count 3 >&-", "sh", log.path.toString())));
        }
    }

    /** What one user has built, another may run. */
    @Test
    void whatIsBuiltIsForAll() throws Exception {
        try (TestLog log = log()) {
            ends(0, "", "", start(log, "--count", "0"));
            // A new folder of this process is as open as its umask has it.
            Path folder = Files.createDirectory(log.dir.resolve("folder"), PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwxrwxrwx")));
            assertEquals(Files.getPosixFilePermissions(folder), Files.getPosixFilePermissions(Path.of("target/tools")));
        }
    }

    /** It prints what is there before it waits; then the log goes away. */
    @Test
    void printsBeforeItWaits() throws Exception {
        try (TestLog log = log()) {
            Process process = start(log);
            BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
            assertEquals("0 1 e8b7be43", lines.readLine());
            assertEquals("1 0 00000000", lines.readLine());
            assertEquals("2 9 cbf43926", lines.readLine());
            log.append(text("a"));
            assertEquals("3 1 e8b7be43", lines.readLine());
            Files.delete(log.path);
            ends(3, "", "removed", process);
        }
    }

    @Test
    void endsWithSignalsAndWithItsReader() throws Exception {
        try (TestLog log = log()) {
            for (String[] signal : new String[][] {{"INT", "130"}, {"TERM", "143"}}) {
                Process process = start(log);
                BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
                lines.readLine();
                assertEquals("", TestLog.told("kill", "-" + signal[0], Long.toString(process.pid())));
                assertTrue(process.waitFor(20, TimeUnit.SECONDS));
                assertEquals(Integer.parseInt(signal[1]), process.exitValue());
            }
            Process process = start(log, "--timeout", "20");
            process.getInputStream().close();
            long begin = System.nanoTime();
            assertTrue(process.waitFor(60, TimeUnit.SECONDS));
            assertEquals(0, process.exitValue());
            assertEquals("", new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8));
            assertTrue(System.nanoTime() - begin < 15_000_000_000L);
        }
    }
}
