package immuta;

/** Who is writing a log. */
public enum WriterState {
    /** A writer has the log open. */
    ALIVE,
    /** The last writer closed the log. */
    CLOSED,
    /** The last writer ended without closing the log. */
    GONE,
    /** A flush failed: the writer publishes nothing more. */
    FAILED
}
