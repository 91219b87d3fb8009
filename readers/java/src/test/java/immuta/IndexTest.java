package immuta;

import static immuta.TestLog.text;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import immuta.TestLog.Pieces;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.time.Duration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The index is used where it is true: shown by a log whose first record says a size that cannot be, so that nobody walks through it. */
@Timeout(60)
class IndexTest {
    private static final int RECORDS = 40;
    private static final int EACH = 18;

    /** Records of 10 bytes, 18 with their size; four in a block. */
    private static TestLog log() throws IOException {
        TestLog log = new TestLog();
        for (int n = 0; n < RECORDS; n++) {
            log.append(text(String.format("record %03d", n)));
        }
        log.write(8, TestLog.numbers(-1));
        return log;
    }

    private static long position(long sequence) {
        return 8 + sequence * EACH;
    }

    private static Pieces blocks(TestLog log, Pieces pieces, int from, int to) throws IOException {
        for (int n = from; n < to; n += 4) {
            pieces.block(n, position(n), 4 * EACH, 4);
        }
        return pieces;
    }

    private static void isUsed(TestLog log, long first) throws IOException {
        try (Reader reader = log.reader()) {
            for (long n = first; n < RECORDS; n++) {
                byte[] expected = text(String.format("record %03d", n));
                assertArrayEquals(expected, reader.get(n));
                try (Tailer tailer = reader.tail(Start.sequence(n)); Tailer last = reader.tail(Start.last(RECORDS - n))) {
                    Record record = tailer.tryNext();
                    assertEquals(position(n), record.position());
                    assertArrayEquals(expected, record.bytes());
                    assertArrayEquals(expected, last.tryNext().bytes());
                }
            }
            log.append(text("new"));
            try (Tailer tailer = reader.tail(Start.sequence(RECORDS))) {
                assertArrayEquals(text("new"), tailer.tryNext().bytes());
            }
        }
    }

    private static void isIgnored(TestLog log, long sequence) throws IOException {
        try (Reader reader = log.reader()) {
            assertThrows(LogException.Damaged.class, () -> reader.get(sequence));
            assertThrows(LogException.Damaged.class, () -> reader.tail(Start.sequence(sequence)).tryNext());
            // It walks then, where there is a way.
            log.write(8, TestLog.numbers(10));
            assertArrayEquals(text(String.format("record %03d", sequence)), reader.get(sequence));
            log.write(8, TestLog.numbers(-1));
        }
    }

    @Test
    void aTrueIndexIsUsed() throws IOException {
        try (TestLog log = log()) {
            isIgnored(log, 20);
            blocks(log, log.new Pieces().header(), 0, RECORDS).write();
            // The first block leads to the record that lies.
            isUsed(log, 4);
        }
    }

    @Test
    void itNeedNotReachTheEnd() throws IOException {
        try (TestLog log = log()) {
            blocks(log, log.new Pieces().header(), 0, RECORDS - 12).write();
            isUsed(log, 4);
        }
    }

    @Test
    void entriesWithoutRecordsAndBrokenOnesAreNoPlaces() throws IOException {
        try (TestLog log = log()) {
            Pieces pieces = blocks(log, log.new Pieces().header(), 0, 8);
            // A writer began; a checkpoint without records.
            pieces.entry(8, position(8), 123, 456, 2 | 0x100, 0).entry(8, position(8), 0, 0, 1 | 0x100, 0);
            blocks(log, pieces, 8, 24).entry(24, position(24), 99, 99, 2, 0).write();
            isUsed(log, 4);
        }
        try (TestLog log = log()) {
            blocks(log, log.new Pieces().header(), 0, RECORDS).write();
            try (RandomAccessFile index = new RandomAccessFile(log.path + ".idx", "rw")) {
                for (int piece : new int[] {3, 4, 10}) {
                    index.seek(64L * piece + 3);
                    index.write(0xff);
                }
                index.seek(index.length());
                index.write(new byte[70]);
            }
            isUsed(log, 4);
        }
    }

    @Test
    void aBlockOfOneRecordIsToldByItsSize() throws IOException {
        try (TestLog log = log()) {
            log.new Pieces().header().entry(0, 8, 5 * EACH, 5, 1, 0).entry(5, position(5), EACH, 1, 1, 0).write();
            isUsed(log, 5);
        }
        try (TestLog log = log()) {
            log.new Pieces().header().entry(5, position(5), EACH + 1, 1, 1, 0).write();
            isIgnored(log, 6);
        }
    }

    @Test
    void aFalseIndexIsIgnored() throws IOException {
        try (TestLog log = log()) {
            LogFile.Identity identity = LogFile.Identity.of(log.path);
            blocks(log, log.new Pieces().header(identity.inode() + 1, identity.birthNanos()), 0, RECORDS).write();
            isIgnored(log, 20);
            blocks(log, log.new Pieces().header(identity.inode(), identity.birthNanos() + 1), 0, RECORDS).write();
            isIgnored(log, 20);
            // A place that is none, with the checksum of something else; numbers that lie.
            for (long[] lie : new long[][] {{20, position(20) + 1, 4 * EACH, 4}, {20, -1, 4 * EACH, 4}, {20, Long.MAX_VALUE, 4 * EACH, 4},
                {20, position(20), -1, 4}, {20, position(20), Long.MAX_VALUE, 4}, {20, position(20), 4 * EACH, -4},
                {20, position(20), 4 * EACH, Long.MAX_VALUE}, {-1, position(20), 4 * EACH, 4}, {0, 0, 8, 1}}) {
                log.new Pieces().header().entry(lie[0], lie[1], lie[2], lie[3], 1, 1).write();
                isIgnored(log, 21);
            }
            log.new Pieces().write();
            isIgnored(log, 20);
            log.new Pieces().header().write();
            isIgnored(log, 20);
        }
    }

    /** Pieces without a word: some are stepped over, more are not worth what a walk costs. */
    @ParameterizedTest
    @ValueSource(longs = {1000, 3000, 1L << 30})
    void aSearchEndsWhereMuchOfAnIndexIsDamaged(long pieces) throws IOException {
        try (TestLog log = log()) {
            blocks(log, log.new Pieces().header(), 0, RECORDS).write();
            try (RandomAccessFile index = new RandomAccessFile(log.path + ".idx", "rw")) {
                index.setLength(64 * pieces);
            }
            assertTimeoutPreemptively(Duration.ofSeconds(20), () -> {
                if (pieces == 1000) {
                    isUsed(log, 4);
                } else {
                    // The last one lies just before them.
                    isIgnored(log, RECORDS - 1);
                }
            });
        }
    }

    @Test
    void anIndexThatIsAheadOfTheLogLeadsNowhere() throws IOException {
        try (TestLog log = log()) {
            Pieces pieces = blocks(log, log.new Pieces().header(), 0, RECORDS);
            pieces.entry(RECORDS - 4, position(RECORDS - 4), 4 * EACH, 100, 1, 1).write();
            isUsed(log, 4);
        }
    }
}
