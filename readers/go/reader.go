// Package immuta reads and follows an immuta log: a file to which one process appends records. It needs Linux, 64 bit and
// little-endian, and nothing but the standard library.
//
// A [Reader] is an opened log, and a [Tailer] goes through it and waits for what comes. Neither takes a lock, holds a writer
// up, or writes anything but the doorbell's announcement that somebody sleeps. A relative path is looked up again while a log
// is followed, so a program that uses one must not change its directory.
//
// The log is read with pread(2) in steps of up to 256 KiB, not mapped: in steps that stay in the second-level cache this is
// as fast as a mapping, which faults for each page, and a log that another program truncates is an error then, not a SIGBUS.
package immuta

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// Options say how to open a log. The zero value, or nil, has the defaults.
type Options struct {
	WaitForLog time.Duration // how long to wait for the log to appear; 0: not at all, below 0: for ever
	MaxRecord  uint64        // the largest payload that is taken, in bytes; 0: 1 GiB
	ControlDir string        // where control pages are; "": the environment's IMMUTA_CONTROL_DIR, else /dev/shm
}

// Start is where a Tailer begins. The zero value is [Beginning].
type Start struct {
	from from
	n    uint64
}

type from int

const (
	fromBeginning from = iota
	fromEnd
	fromSequence
	fromLast
)

var (
	Beginning = Start{}              // with the first record
	End       = Start{from: fromEnd} // with the first that comes after now
)

// Sequence begins with record n, and waits for it where there are fewer.
func Sequence(n uint64) Start { return Start{fromSequence, n} }

// Last begins with the last n records, or with all where there are fewer.
func Last(n uint64) Start { return Start{fromLast, n} }

// Reader is an opened log. It may be used by several goroutines at once, and its Tailers outlive it.
type Reader struct {
	mutex sync.Mutex
	walk  Tailer // finds what is asked for, and remembers where it was
}

// Open opens the log at path; options may be nil. It waits only for [Options].WaitForLog.
//
// Its errors are [ErrNotFound], [ErrNotALog], [ErrDamaged] where the count cannot be true, and the system's.
func Open(path string, options *Options) (*Reader, error) {
	o := Options{}
	if options != nil {
		o = *options
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = defaultSize
	}
	if o.ControlDir == "" {
		o.ControlDir = os.Getenv("IMMUTA_CONTROL_DIR")
	}
	if o.ControlDir == "" {
		o.ControlDir = defaultDir
	}
	for begun := time.Now(); ; time.Sleep(poll) {
		// Asked first: to open a device may do something.
		if stat, err := os.Stat(path); err == nil && !stat.Mode().IsRegular() {
			return nil, &Error{Kind: ErrNotALog, Path: path}
		}
		file, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
		switch {
		case err == nil:
			return begin(file, path, o)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, refused(path, "opening", errors.Unwrap(err))
		case o.WaitForLog >= 0 && time.Since(begun) >= o.WaitForLog:
			return nil, &Error{Kind: ErrNotFound, Path: path, Err: fs.ErrNotExist}
		}
	}
}

func begin(file *os.File, path string, o Options) (*Reader, error) {
	r := &Reader{walk: Tailer{
		log:       source{path: path, controlDir: o.ControlDir, file: file, boot: readBootID()},
		maxRecord: o.MaxRecord,
	}}
	r.walk.rewind()
	stat, err := file.Stat()
	switch {
	case err != nil:
		err = refused(path, "opening", err)
	case !stat.Mode().IsRegular():
		err = &Error{Kind: ErrNotALog, Path: path}
	default:
		raw := stat.Sys().(*syscall.Stat_t)
		r.walk.log.device, r.walk.log.inode, r.walk.log.owner = uint64(raw.Dev), raw.Ino, raw.Uid
		r.walk.log.birthNs = birth(file.Fd())
		syscall.SetNonblock(int(file.Fd()), false) // that was against a FIFO in its place
		_, _, err = r.walk.logCount()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return r, nil
}

func (t *Tailer) rewind() {
	t.position, t.step, t.upkeepAt = 8, firstStep, -1<<62
}

// clone gives another cursor over the same log, at its beginning.
func (t *Tailer) clone() (*Tailer, error) {
	file, err := duplicate(t.log.file)
	if err != nil {
		return nil, refused(t.log.path, "a tailer", err)
	}
	from := &t.log
	c := &Tailer{maxRecord: t.maxRecord, log: source{path: from.path, controlDir: from.controlDir, file: file,
		device: from.device, inode: from.inode, owner: from.owner, birthNs: from.birthNs, boot: from.boot}}
	c.rewind()
	return c, nil
}

// Close gives back what the Reader holds. Its Tailers go on.
func (r *Reader) Close() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.walk.Close()
}

// Count is how many records are published now.
func (r *Reader) Count() (uint64, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	count, _, err := r.walk.extent()
	return count, err
}

// Get gives the payload of the record of this sequence, which is the caller's; false where there are fewer. The index finds
// it, where there is one. Its errors are [ErrDamaged], [ErrTooLarge] and the system's.
func (r *Reader) Get(sequence uint64) (payload []byte, ok bool, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	count, _, err := r.walk.extent()
	if err != nil || sequence >= count {
		return nil, false, err
	}
	if err = r.walk.seek(sequence, count); err != nil {
		return nil, false, err
	}
	record, err := r.walk.take(true)
	if err != nil {
		return nil, false, err
	}
	return bytes.Clone(record.Payload), true, nil
}

// Writer tells who is writing. It reads through a log that has no index where only that can tell closed from gone, and fails
// with [ErrDamaged] where that is what it finds.
func (r *Reader) Writer() (WriterState, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.walk.log.writer(&r.walk)
}

// Tail gives a Tailer that begins at start, which is fixed now. Without an index it may have to read through the log for that,
// and fails with [ErrDamaged] where it cannot.
func (r *Reader) Tail(start Start) (*Tailer, error) {
	r.mutex.Lock()
	t, err := r.walk.clone()
	r.mutex.Unlock()
	if err != nil {
		return nil, err
	}
	count, end, err := t.extent()
	if err == nil {
		var target uint64
		switch start.from {
		case fromEnd:
			target = count
		case fromSequence:
			target = min(start.n, count)
			t.skipTo = start.n
		case fromLast:
			target = count - min(start.n, count)
		}
		if target == count && end != 0 { // the page has told where that is
			t.sequence, t.position = count, end
		} else {
			err = t.seek(target, count)
		}
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}
