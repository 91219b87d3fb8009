package immuta

import (
	"errors"
	"math"
	"os"
	"testing"
)

// indexed makes a log of 3000 records and its index: blocks of 1000, behind each of which a writer began; the third is not
// covered yet. Where the first record is damaged, whoever finds one behind the first block had the index.
func indexed(t *testing.T, damaged bool) *testLog {
	l := newLog(t)
	for range 3000 {
		l.put(16)
	}
	if damaged {
		l.raw(8, math.MaxUint64)
	}
	l.store()
	l.makeIndex(l.inode, l.birth)
	return l
}

func (l *testLog) makeIndex(inode, birth uint64) {
	l.index(true, l.header(inode, birth))
	for first := uint64(0); first < 2000; first += 1000 {
		at := 8 + 24*first
		l.index(false, l.block(first, at, 24000, 1000), [7]uint64{first + 1000, at + 24000, 48, 2, 44, 2 | 99<<32, 0})
	}
}

// found tells whether record sequence is found; it is right then.
func (l *testLog) found(sequence uint64) bool {
	l.Helper()
	payload, ok, err := l.open(nil).Get(sequence)
	if errors.Is(err, ErrDamaged) {
		return false
	}
	l.ok(err)
	l.check(ok, "record %d is there", sequence)
	l.same(Record{Sequence: sequence, Payload: payload}, sequence, 16)
	return true
}

func TestIndexIsUsed(t *testing.T) {
	l := indexed(t, true)
	for _, sequence := range []uint64{1000, 1001, 1999, 2000, 2001, 2999} {
		l.check(l.found(sequence), "record %d is found", sequence)
	}
	l.check(!l.found(999), "that is damaged")
	for start, first := range map[Start]uint64{Sequence(1500): 1500, Last(1): 2999, Last(1500): 1500, End: 3000} {
		tailer := l.tail(start)
		for n := first; n < 3000; n++ {
			l.gives(tailer, n, 16)
		}
		l.nothing(tailer)
	}
	link := *l
	link.path = l.path + ".link"
	l.ok(os.Symlink(l.path, link.path))
	l.check(link.found(2500), "it lies beside what a link leads to")
	l.ok(os.Rename(l.path+".idx", link.path+".idx"))
	l.check(!link.found(2500), "not beside the link")
}

// One large record is a block by itself, borne out by its size.
func TestIndexIsUsedForLargeRecords(t *testing.T) {
	l := newLog(t)
	l.put(16)
	l.raw(8, math.MaxUint64)
	position := l.end
	l.put(500000)
	l.put(16)
	l.store()
	l.index(true, l.header(l.inode, l.birth), [7]uint64{1, position, 500008, 1, 44, 1 | 12345<<32, 0}) // its checksum is not taken
	l.check(l.found(2), "it is used")
	l.raw(position, 499999)
	l.check(!l.found(2), "it is not")
}

func flip(l *testLog, path string, at int64) {
	l.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	l.ok(err)
	defer file.Close()
	var b [1]byte
	_, err = file.ReadAt(b[:], at)
	l.ok(err)
	b[0] ^= 4
	_, err = file.WriteAt(b[:], at)
	l.ok(err)
}

// Not there, foreign, damaged: then the log is walked, which here shows by its damage; and where it can be walked, all is right.
func TestIndexIsIgnored(t *testing.T) {
	for _, damaged := range []bool{true, false} {
		l := indexed(t, damaged)
		name, walked := l.path+".idx", !damaged
		is := func(found bool, what string) {
			t.Helper()
			l.check(l.found(2500) == found, what)
		}
		is(true, "whole")
		for at := int64(0); at < 64; at += 7 {
			flip(l, name, at)
			is(walked, "its header")
			flip(l, name, at)
		}
		flip(l, name, 64*3+30)
		is(true, "the second block's piece: the first one serves")
		flip(l, name, 64*3+30)
		flip(l, l.path, 8+24*1500+8)
		is(walked, "a byte of the second block: it proves nothing any more")
		flip(l, l.path, 8+24*1500+8)
		l.index(false, [7]uint64{2000, 8 + 24*2000, 24*1000 + 8, 1000, 44, 1, 0})
		is(true, "more than is published: the one before serves")
		l.ok(os.Truncate(name, 64*4+63))
		is(true, "a torn piece at its end")
		l.ok(os.Truncate(name, 1<<40))
		is(walked, "a hole, too long to search")
		l.ok(os.Truncate(name, 63))
		is(walked, "less than a header")
		l.ok(os.Truncate(name, 0))
		is(walked, "nothing")
		l.makeIndex(l.inode+1, l.birth)
		is(walked, "another file's")
		l.makeIndex(l.inode, l.birth+1)
		is(walked, "a file's that had the same inode before")
		l.makeIndex(l.inode, l.birth)
		is(true, "whole again")
		for _, lie := range [][4]uint64{{1, math.MaxUint64 - 10, 100, 2}, {1, 32, math.MaxUint64 - 31, 2}, {1, 32, 240, math.MaxUint64}, {1, 3, 240, 10}, {math.MaxUint64, 32, 240, 10}, {1, 32, 0, 0}, {1, 32, 7, 0}, {1, 32, 1, 1}} {
			l.index(true, l.header(l.inode, l.birth), [7]uint64{lie[0], lie[1], lie[2], lie[3], 44, 1, 0})
			is(walked, "a lie")
		}
		l.ok(os.Remove(name))
		is(walked, "none")
		l.ok(os.Mkdir(name, 0o700))
		is(walked, "a directory")
	}
}

// A block, and behind it entries that cover nothing and come before it: stepping back from them leads to a block beyond the target.
func TestIndexIsOutOfOrder(t *testing.T) {
	l := indexed(t, false)
	empty := func(first uint64) [7]uint64 { return [7]uint64{first, 8 + 24*first, 0, 0, 44, 1, 0} }
	l.index(true, l.header(l.inode, l.birth), l.block(1900, 8+24*1900, 24*50, 50), empty(500), empty(510))
	l.check(l.found(1500) && l.found(2500), "both are found")
}
