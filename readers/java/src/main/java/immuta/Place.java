package immuta;

/** Where a record lies: as many records as {@code sequence} come before {@code position}. */
record Place(long sequence, long position) {
    static final Place BEGINNING = new Place(0, LogFile.FIRST);

    Place later(Place other) {
        return other != null && other.sequence > sequence ? other : this;
    }
}
