package immuta;

/** Where a tailer begins; fixed when the tailer is made. */
public final class Start {
    enum Kind { SEQUENCE, END, LAST }

    private static final Start BEGINNING = new Start(Kind.SEQUENCE, 0);
    private static final Start END = new Start(Kind.END, 0);

    final Kind kind;
    final long n;

    private Start(Kind kind, long n) {
        if (n < 0) {
            throw new IllegalArgumentException("a number of records is 0 or more, not " + n);
        }
        this.kind = kind;
        this.n = n;
    }

    /** With the first record. */
    public static Start beginning() {
        return BEGINNING;
    }

    /** With the first record that is published after the tailer was made. */
    public static Start end() {
        return END;
    }

    /** With the record of this sequence, which is behind the first {@code n}; waits for it where there are fewer. */
    public static Start sequence(long n) {
        return new Start(Kind.SEQUENCE, n);
    }

    /** Behind the first {@code n} records; the same as {@link #sequence}. */
    public static Start skip(long n) {
        return sequence(n);
    }

    /** With the last {@code n} records, or with all where there are fewer. */
    public static Start last(long n) {
        return new Start(Kind.LAST, n);
    }

    /** The sequence of the first record to deliver, in a log of {@code count} records. */
    long first(long count) {
        return switch (kind) {
            case SEQUENCE -> n;
            case END -> count;
            case LAST -> Math.max(0, count - n);
        };
    }
}
