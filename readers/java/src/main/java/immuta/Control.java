package immuta;

import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Which control page of a log may be followed, and who is writing. For one thread at a time. */
final class Control {
    /** A page that does not move for so long is a stopped or a dead writer's. */
    private static final long STILL_NANOS = TimeUnit.SECONDS.toNanos(2);
    /** A writer may begin and end between the steps of one look, which then seems to find what a dead one left; not in each of these. */
    private static final int LOOKS = 3;

    private final LogFile log;
    private final Path path;
    private ControlPage named;
    /** By a tailer; it may not have its name any more. */
    private ControlPage followed;
    /** The page that these are about, and what of it was last seen to move, and when. */
    private ControlPage seen;
    private long heartbeat;
    private long end;
    private long movedAt;

    Control(LogFile log, Path dir) {
        this.log = log;
        path = ControlPage.pathOf(dir, log.identity);
    }

    /** The page that has the name now, if it can be believed; it may be a dead writer's. */
    private ControlPage named() {
        if (named == null || !named.isNamed(path)) {
            if (named != null && named != followed) {
                named.close();
            }
            // Mostly there is none: an exception each time would cost more than all else.
            named = path.toFile().exists() ? ControlPage.open(path, log) : null;
        }
        return named;
    }

    /** The page to follow from now on, else null: then the count in the log tells. It stays in memory until this is called again. */
    ControlPage follow() throws IOException {
        ControlPage before = followed;
        followed = toFollow(before);
        if (before != null && before != followed && before != named) {
            before.close();
        }
        return followed;
    }

    /** The page that may be followed now, else null. Before the next call it may be let go of. */
    ControlPage toFollow(ControlPage followed) throws IOException {
        // The page before the lock: if that is free then, the page's writer has ended, whatever another may begin meanwhile.
        ControlPage page = named();
        if (page == null || page.state() != ControlPage.OPEN && page.state() != ControlPage.FAILED) {
            return null;
        }
        if (!isWritten()) {
            look(page);
            movedAt = System.nanoTime() - STILL_NANOS;
            return null;
        }
        boolean still = isStill(page);
        if (page != followed) {
            return still ? null : page;
        }
        // Who follows it already stays with it, as long as the log is not ahead of it.
        Place told = page.pair();
        return still && told != null && log.count() > told.sequence() ? null : page;
    }

    private boolean isWritten() {
        try {
            return log.lock.isHeld();
        } catch (IOException unknown) {
            // The count in the log can be followed in any case.
            return false;
        }
    }

    private boolean isStill(ControlPage page) {
        look(page);
        return System.nanoTime() - movedAt >= STILL_NANOS;
    }

    private void look(ControlPage page) {
        long heartbeat = page.heartbeat();
        long end = page.end();
        long now = System.nanoTime();
        if (page != seen) {
            // nanoTime is CLOCK_MONOTONIC on Linux, as the heartbeat is. One of the future is another clock's: it has to move first.
            long age = now - heartbeat;
            movedAt = age < 0 || age > STILL_NANOS ? now - STILL_NANOS : heartbeat;
        } else if (heartbeat != this.heartbeat || end != this.end) {
            movedAt = now;
        }
        seen = page;
        this.heartbeat = heartbeat;
        this.end = end;
    }

    /** Who is writing; {@code at} is any place in the log, best one near its end. */
    WriterState writer(Place at) throws IOException {
        WriterState state = lookWhoWrites(at);
        for (int n = 1; n < LOOKS && state == WriterState.GONE; n++) {
            state = lookWhoWrites(at);
        }
        return state;
    }

    private WriterState lookWhoWrites(Place at) throws IOException {
        ControlPage page = named();
        boolean held = log.lock.isHeld();
        // Its state after the lock: a writer says how it ended before it gives that back.
        long state = page == null ? 0 : page.state();
        if (held) {
            return state == ControlPage.FAILED && !isStill(page) ? WriterState.FAILED : WriterState.ALIVE;
        }
        if (state == ControlPage.FAILED) {
            return WriterState.FAILED;
        }
        if (state == ControlPage.CLOSED || page == null && endsExactly(at)) {
            return WriterState.CLOSED;
        }
        return log.lock.isHeld() ? WriterState.ALIVE : WriterState.GONE;
    }

    /** Whether the file ends behind its last record, as a clean close leaves it. */
    private boolean endsExactly(Place at) throws IOException {
        // The count first: a writer that begins now makes the file longer before it counts more.
        long count = log.count();
        long bytes = log.size();
        if (bytes == 0) {
            return true;
        }
        Place from = at.sequence() <= count ? at : Place.BEGINNING;
        if (from.sequence() < count) {
            from = from.later(Index.seek(log, count));
        }
        Cursor cursor = new Cursor(log, Long.MAX_VALUE, from);
        cursor.allow(count, bytes);
        while (cursor.pass()) {
            // Nothing but the place is wanted.
        }
        return cursor.position() == bytes;
    }
}
