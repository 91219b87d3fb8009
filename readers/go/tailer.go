package immuta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	chunkBytes = 256 << 10 // the largest step of reading
	firstStep  = 16 << 10  // steps double from here, so that little is read for a record or two
	keepBytes  = 8 << 20   // a buffer for a large payload is kept for the next one up to this size
	near       = 64        // records from where a cursor is that are walked rather than asked of the index

	slice     = 25 * time.Millisecond  // the longest sleep: Stop and a context only set a flag
	upkeep    = 100 * time.Millisecond // how often names, locks and heartbeats are looked at
	poll      = 16 * time.Millisecond  // the longest interval of looking where nobody wakes us
	pollPage  = 200 * time.Microsecond // the first one, of a load from memory
	pollCount = time.Millisecond       // the first one, of system calls
)

// Record is one record of a log.
type Record struct {
	Sequence uint64 // how many records come before it
	Position uint64 // of its size field in the log, in bytes
	Payload  []byte // what was appended; borrowed, see the method that gave it
}

// Tailer goes through a log from record to record, and waits for new ones. Only [Tailer.Stop] may be called while another
// goroutine uses it.
//
// A payload is valid until the next call of a method that takes a record from the same Tailer; who keeps it copies it.
type Tailer struct {
	log       source
	maxRecord uint64
	stopped   atomic.Bool
	replaced  bool
	upkeepAt  int64

	sequence, position uint64 // of the next record
	skipTo             uint64 // records below are passed over
	count, end         uint64 // a record is there if its sequence is below count and its position below end
	onPage             bool   // count and end are of the page: count is the highest number. Else of the log: end is its size
	chunk, large       []byte
	at, have           uint64 // in the chunk: the next record, and the end of what was read
	step               uint64
}

// Sequence is that of the next record; of an earlier one while the Tailer waits for a record beyond the end.
func (t *Tailer) Sequence() uint64 { return t.sequence }

// Position is that of the next record, in bytes; of an earlier one while the Tailer waits for a record beyond the end.
func (t *Tailer) Position() uint64 { return t.position }

// Stop ends a wait within 50 ms, and every later call that may wait at once; for good. It may be called at any time.
func (t *Tailer) Stop() { t.stopped.Store(true) }

// Close gives back what the Tailer holds; payloads that it gave stay readable.
func (t *Tailer) Close() error { return t.log.close() }

// Next gives the next record, and waits for it, also across a writer's close, kill and restart. It ends within 50 ms of the
// context's end, with its error. Records that were read ahead are given without a look at the context.
//
// Its errors are [ErrStopped], [ErrDamaged], [ErrTooLarge], [ErrReplaced], the context's and the system's. After an error the
// Tailer is where it was.
func (t *Tailer) Next(ctx context.Context) (Record, error) {
	if !t.stopped.Load() {
		if r, ok := t.quick(); ok {
			return r, nil
		}
	}
	return t.wait(ctx, -1)
}

// NextTimeout is Next for at most limit; then it fails with [ErrTimedOut].
func (t *Tailer) NextTimeout(limit time.Duration) (Record, error) {
	if !t.stopped.Load() {
		if r, ok := t.quick(); ok {
			return r, nil
		}
	}
	return t.wait(context.Background(), max(limit, 0))
}

// TryNext gives the next record if it is there; false where it is not. It does not wait.
func (t *Tailer) TryNext() (Record, bool, error) {
	if r, ok := t.quick(); ok {
		return r, true, nil
	}
	r, err := t.advance()
	if err == errNone {
		return Record{}, false, nil
	}
	return r, err == nil, err
}

// NextBatch fills records with those that are there already, and gives their number, which is at least 1 unless records is
// empty: where there is none it waits for one as Next does.
func (t *Tailer) NextBatch(ctx context.Context, records []Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	var err error
	if records[0], err = t.Next(ctx); err != nil {
		return 0, err
	}
	return t.more(records), nil
}

// TryNextBatch is NextBatch without a wait: 0 where there is none.
func (t *Tailer) TryNextBatch(records []Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	r, ok, err := t.TryNext()
	if !ok {
		return 0, err
	}
	records[0] = r
	return t.more(records), nil
}

func (t *Tailer) more(records []Record) int {
	n := 1
	for ; n < len(records); n++ {
		r, ok := t.quick()
		if !ok {
			break
		}
		records[n] = r
	}
	return n
}

// Records goes over all records, as Next gives them, until the context ends, Stop is called or something fails: the last
// pair then has the error.
func (t *Tailer) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			r, err := t.Next(ctx)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Writer tells who is writing. See [Reader.Writer].
func (t *Tailer) Writer() (WriterState, error) {
	walk, err := t.clone() // a walk to the end must not move the Tailer
	if err != nil {
		return 0, err
	}
	defer walk.Close()
	walk.sequence, walk.position = t.sequence, t.position
	return t.log.writer(walk)
}

// quick takes the next record where all of it lies in the chunk: nearly always. It keeps to numbers, as a slice that is stored
// costs more.
func (t *Tailer) quick() (Record, bool) {
	at := t.at
	if t.have-at < 8 || t.sequence >= t.count || t.sequence < t.skipTo {
		return Record{}, false
	}
	payload := t.chunk[at+8:]
	size := binary.LittleEndian.Uint64(t.chunk[at:])
	if size > t.have-at-8 || size > t.maxRecord {
		return Record{}, false
	}
	r := Record{t.sequence, t.position, payload[:size:size]}
	t.at = at + 8 + size
	t.position += 8 + size
	t.sequence++
	return r, true
}

func (t *Tailer) damaged(detail string, args ...any) error {
	return t.fail(ErrDamaged, detail, args...)
}

// countDamaged is damage of the count, or of the file as a whole: at position 0.
func (t *Tailer) countDamaged(detail string, args ...any) error {
	return &Error{Kind: ErrDamaged, Path: t.log.path, Detail: fmt.Sprintf(detail, args...)}
}

func (t *Tailer) fell(count uint64) error {
	return t.countDamaged("it has %d records now, and %d were there before", count, t.sequence)
}

func (t *Tailer) logCount() (count, size uint64, err error) {
	count, size, ok, err := readCount(t.log.file)
	switch {
	case err != nil:
		return 0, 0, refused(t.log.path, "reading the count", err)
	case !ok && size < 8:
		err = t.countDamaged("a file of %d bytes has no count", size)
	case !ok:
		err = t.countDamaged("a file of %d bytes cannot hold %d records", size, count)
	}
	return count, size, err
}

// refresh learns how far the log has come.
func (t *Tailer) refresh() error {
	if t.log.follows {
		if !t.onPage {
			t.have = t.at
		}
		t.onPage, t.count, t.end = true, ^uint64(0), t.log.page.at(cpEnd)
		return nil
	}
	if !t.onPage && t.count > 0 {
		var word [8]byte // an idle look should cost little: a count that is read as the known one is no news
		if n, err := readAt(t.log.file, word[:], 0); err == nil && n == 8 && binary.LittleEndian.Uint64(word[:]) == t.count {
			return nil
		}
	}
	count, size, err := t.logCount()
	if err != nil {
		return err
	}
	if count < t.sequence {
		return t.fell(count)
	}
	if count != t.count {
		t.have = t.at // bytes that were read before the count that covers them may have been others
		t.step = firstStep
	}
	t.onPage, t.count, t.end = false, count, size
	return nil
}

func (t *Tailer) isThere() bool {
	return t.sequence < t.count && (!t.onPage || t.position < t.end)
}

func (t *Tailer) buffer() []byte {
	if t.chunk == nil {
		t.chunk = make([]byte, chunkBytes)
	}
	return t.chunk
}

// fill reads bytes from the next record on into the chunk.
func (t *Tailer) fill(bytes uint64) error {
	if len(t.large) > keepBytes {
		t.large = nil
	}
	t.at, t.have = 0, 0
	n, err := readAt(t.log.file, t.buffer()[:bytes], t.position)
	if err != nil {
		return refused(t.log.path, "reading", err)
	}
	if n < 8 {
		return t.damaged("the file ends before its size field does")
	}
	t.have = uint64(n)
	return nil
}

// take takes the next record, which is there; where it is not wanted it is passed over, and not read if it is not in the chunk.
func (t *Tailer) take(wanted bool) (Record, error) {
	if t.end < t.position || t.end-t.position < 8 {
		return Record{}, t.damaged("its size field reaches beyond the end, which is at %d", t.end)
	}
	room := t.end - t.position
	if t.have-t.at < 8 || binary.LittleEndian.Uint64(t.chunk[t.at:]) > t.have-t.at-8 {
		if err := t.fill(min(room, t.step)); err != nil {
			return Record{}, err
		}
		t.step = min(t.step*2, chunkBytes)
	}
	size := binary.LittleEndian.Uint64(t.chunk[t.at:])
	if size > room-8 {
		return Record{}, t.damaged("its size of %d bytes reaches beyond the end, which is at %d", size, t.end)
	}
	whole := size <= t.have-t.at-8
	if !whole { // the end may be a page's, which the file must bear out before memory is taken for it
		stat, err := t.log.file.Stat()
		if err != nil {
			return Record{}, refused(t.log.path, "asking for the size", err)
		}
		if bytes := uint64(stat.Size()); bytes < t.position+8 || size > bytes-t.position-8 {
			return Record{}, t.damaged("its size of %d bytes reaches beyond the file's end at %d", size, bytes)
		}
	}
	r := Record{Sequence: t.sequence, Position: t.position}
	switch {
	case !wanted:
	case size > t.maxRecord:
		return Record{}, t.fail(ErrTooLarge, "record %d at position %d has %d bytes, and no more than %d are taken", t.sequence, t.position, size, t.maxRecord)
	case !whole && size <= chunkBytes-8:
		if err := t.fill(size + 8); err != nil {
			return Record{}, err
		}
		if whole = t.have == size+8; !whole {
			return Record{}, t.damaged("the file ends within its %d bytes", size)
		}
	case !whole:
		if uint64(len(t.large)) < size {
			t.large = nil
			t.large = make([]byte, size)
		}
		n, err := readAt(t.log.file, t.large[:size], t.position+8)
		if err != nil {
			return Record{}, refused(t.log.path, "reading", err)
		}
		if uint64(n) < size {
			return Record{}, t.damaged("the file ends within its %d bytes", size)
		}
		r.Payload = t.large[:size:size]
	}
	if whole {
		r.Payload = t.chunk[t.at+8:][:size:size]
		t.at += 8 + size
	} else {
		t.have = t.at
	}
	t.position += 8 + size
	t.sequence++
	return r, nil
}

// seek goes to record target, which is not greater than count.
func (t *Tailer) seek(target, count uint64) error {
	ahead := t.sequence <= target
	if !ahead || t.sequence == 0 || target-t.sequence > near {
		sequence, position, found := t.find(target, count, t.end)
		if !found {
			sequence, position = 0, 8
		}
		if !ahead || sequence > t.sequence {
			t.sequence, t.position, t.have, t.step = sequence, position, t.at, firstStep
		}
	}
	for t.sequence < target {
		if _, err := t.take(false); err != nil {
			return err
		}
	}
	return nil
}

// extent gives how many records may be read now; where the page tells also their end, else end is 0.
func (t *Tailer) extent() (count, end uint64, err error) {
	if now := monotonic(); now-t.upkeepAt >= int64(upkeep) || t.log.state() != stateOpen {
		t.upkeepAt = now
		t.log.look(now)
	}
	if t.log.follows {
		count, end, t.log.follows = t.log.page.pair()
	}
	if err = t.refresh(); err == nil && !t.onPage {
		count = t.count
	}
	return count, end, err
}

// endsExactly tells whether the file ends exactly behind its last record, where there is no page.
func (t *Tailer) endsExactly() (bool, error) {
	t.log.follows = false
	if err := t.refresh(); err != nil {
		return false, err
	}
	size := t.end
	if err := t.seek(t.count, t.count); err != nil {
		return false, err
	}
	return size == t.position || size == 0, nil
}

// keepUp looks for what the page does not say: that another has its name, that its writer died, that the log is gone.
func (t *Tailer) keepUp(now int64) error {
	t.upkeepAt = now
	t.log.look(now)
	stat, err := os.Stat(t.log.path)
	switch {
	case err != nil:
		t.replaced = errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	default:
		raw := stat.Sys().(*syscall.Stat_t)
		t.replaced = uint64(raw.Dev) != t.log.device || raw.Ino != t.log.inode
	}
	if t.replaced {
		t.log.drop()
		return nil
	}
	// A page tells nothing of a file that was cut, or written over, under a living writer.
	count, size, err := t.logCount()
	switch {
	case err != nil:
		return err
	case count < t.sequence:
		return t.fell(count)
	case t.position > 8 && size < t.position:
		return t.countDamaged("the file was cut to %d bytes, and %d were there before", size, t.position)
	}
	return nil
}

// advance gives the next record, if it is there; else errNone.
func (t *Tailer) advance() (Record, error) {
	for looked := false; ; looked = true {
		for t.isThere() {
			wanted := t.sequence >= t.skipTo
			if r, err := t.take(wanted); wanted || err != nil {
				return r, err
			}
		}
		if looked && t.replaced {
			return Record{}, t.fail(ErrReplaced, "%v, after %d records", ErrReplaced, t.sequence)
		}
		if looked {
			return Record{}, errNone
		}
		now, state := monotonic(), t.log.state()
		if !t.replaced && (now-t.upkeepAt >= int64(upkeep) || state == stateClosed || state == stateSuperseded) {
			if err := t.keepUp(now); err != nil {
				t.upkeepAt = -1 << 62 // the next call finds it again
				return Record{}, err
			}
		}
		if err := t.refresh(); err != nil {
			return Record{}, err
		}
	}
}

// wait gives the next record, after at most limit; below 0: without one.
func (t *Tailer) wait(ctx context.Context, limit time.Duration) (Record, error) {
	var begun time.Time
	var interval time.Duration
	for {
		if t.stopped.Load() {
			return Record{}, t.fail(ErrStopped, "")
		}
		if err := ctx.Err(); err != nil {
			return Record{}, refused(t.log.path, "waiting for a record", context.Cause(ctx))
		}
		r, err := t.advance()
		if err != errNone {
			return r, err
		}
		turn := slice
		if limit >= 0 {
			if begun.IsZero() {
				begun = time.Now()
			}
			left := limit - time.Since(begun)
			if left <= 0 {
				return Record{}, t.fail(ErrTimedOut, "no record within %v", limit)
			}
			turn = min(turn, left)
		}
		if t.log.follows && t.log.bell != nil {
			t.log.sleepOn(t.position, turn)
			continue
		}
		first := pollCount
		if t.log.follows {
			first = pollPage
		}
		interval = min(max(first, 2*interval), poll)
		pause(min(interval, turn))
	}
}
