package immuta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var sizes = []uint64{0, 1, 7, 8, 4087, 4088, 4089, 16375, 16376, 16377, 0, 262135, 262136, 262137, 300000, 2097144, 2097152, 5, 0, 9000000, 3}

func TestWalks(t *testing.T) {
	l := newLog(t)
	for _, size := range sizes {
		l.put(size)
	}
	l.store()
	r := l.open(nil)
	tailer := l.tail(Beginning)
	position := uint64(8)
	for i, size := range sizes {
		l.check(tailer.Sequence() == uint64(i) && tailer.Position() == position, "sequence and position")
		record, err := tailer.Next(background)
		l.ok(err)
		l.same(record, uint64(i), size)
		l.check(record.Position == position, "position")
		position += 8 + size
	}
	l.nothing(tailer)
	count, err := r.Count()
	l.check(err == nil && count == uint64(len(sizes)), "count")
	for i := len(sizes) - 1; i >= 0; i-- {
		payload, ok, err := r.Get(uint64(i))
		l.check(ok && err == nil, "get %d: %v", i, err)
		l.same(Record{Sequence: uint64(i), Payload: payload}, uint64(i), sizes[i])
	}
	_, ok, err := r.Get(uint64(len(sizes)))
	l.check(!ok && err == nil, "no record at the end")

	tailer = l.tail(Beginning)
	batch, many := make([]Record, 5), false
	for i := 0; i < len(sizes); {
		n, err := tailer.NextBatch(background, batch)
		l.ok(err)
		for _, record := range batch[:n] {
			l.same(record, uint64(i), sizes[i])
			i++
		}
		many = many || n > 1
	}
	l.check(many, "batches have many")
	n, err := tailer.TryNextBatch(batch)
	l.check(n == 0 && err == nil, "no batch")

	i := uint64(0)
	for record, err := range l.tail(Beginning).Records(background) {
		l.ok(err)
		l.same(record, i, sizes[i])
		if i++; i == uint64(len(sizes)) {
			break
		}
	}
}

func TestStarts(t *testing.T) {
	for _, paged := range []bool{false, true} {
		for _, c := range []struct {
			start Start
			first uint64
		}{{Beginning, 0}, {End, 10}, {Sequence(0), 0}, {Sequence(7), 7}, {Sequence(10), 10}, {Sequence(13), 13}, {Last(0), 10}, {Last(3), 7}, {Last(10), 0}, {Last(math.MaxUint64), 0}} {
			l := newLog(t)
			l.lock()
			if paged {
				l.begin(5)
			}
			for k := range uint64(10) {
				l.add(k)
			}
			tailer := l.tail(c.start)
			l.check(tailer.Sequence() == min(c.first, 10), "begins at %d", c.first)
			if c.first >= 10 {
				l.nothing(tailer)
			}
			for k := uint64(10); k < 15; k++ {
				l.add(k)
			}
			for k := c.first; k < 15; k++ {
				l.gives(tailer, k, k)
			}
		}
	}
}

// Bytes behind the count are no part of the log, and what was read of them is not kept.
func TestIgnoresWhatIsNotCounted(t *testing.T) {
	for _, paged := range []bool{false, true} {
		l := newLog(t)
		for range 3 {
			l.put(10)
		}
		l.store()
		torn := *l
		torn.put(20)
		torn.size(math.MaxUint64)
		l.cut(1 << 20)
		tailer := l.tail(Beginning)
		for i := range uint64(3) {
			l.gives(tailer, i, 10)
		}
		l.nothing(tailer)
		l.lock()
		if paged {
			l.begin(1)
			l.idles(tailer, 250*time.Millisecond) // time to find the page
		}
		l.put(100) // over what is in the reader's buffer
		l.add(5)
		l.gives(tailer, 3, 100)
		l.gives(tailer, 4, 5)
	}
	l := newLog(t)
	l.cut(0)
	l.nothing(l.tail(Beginning)) // a file of 0 bytes is a log without records
}

func TestRefusesCountsThatLie(t *testing.T) {
	l := newLog(t)
	l.put(0)
	for _, count := range []uint64{2, math.MaxUint64, 1 << 63, math.MaxUint64/8 + 1} {
		l.raw(0, count)
		_, err := Open(l.path, nil)
		l.damaged(err, 0, 0)
	}
	for size := uint64(1); size < 8; size++ {
		l.cut(size)
		_, err := Open(l.path, nil)
		l.damaged(err, 0, 0)
	}
}

func TestRefusesSizesThatLie(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tests := 0
	for _, paged := range []bool{false, true} {
		for _, size := range []uint64{math.MaxUint64, math.MaxUint64 - 7, 1 << 63, 1<<63 - 1, 1 << 40, 1000001, 1000, 0} {
			if size == 1000 && !paged {
				continue // nobody can tell
			}
			tests++
			l := newLog(t)
			l.lock()
			l.put(3)
			l.put(70000)
			position := l.end
			if paged {
				l.begin(9)
			}
			if size == 0 { // the count is one too high, and the size field itself is beyond the end
				l.count++
				l.cut(position + 7)
				l.end = position + 7
			} else {
				l.size(size)
				l.cut(position + 8 + 1000000)
				l.end = 1 << 62 // the page's end lies as well; or it is right, and the size is not, though the file has so many bytes
				if size == 1000 {
					l.end = position + 1007
				}
			}
			l.store()
			tailer := l.tail(Beginning)
			if paged {
				l.publish()
			}
			l.gives(tailer, 0, 3)
			l.gives(tailer, 1, 70000)
			for range 2 {
				_, err := tailer.NextTimeout(20 * time.Second)
				l.damaged(err, position, 2)
			}
			if !paged {
				_, _, err := l.open(nil).Get(2)
				l.damaged(err, position, 2)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(tests)<<21 {
		t.Fatalf("%d bytes were allocated", allocated)
	}
}

func TestLimitsPayloads(t *testing.T) {
	l := newLog(t)
	l.put(100)
	position := l.end
	l.put(101)
	l.put(5)
	l.store()
	r := l.open(&Options{MaxRecord: 100})
	tailer, err := r.Tail(Beginning)
	l.ok(err)
	defer tailer.Close()
	l.gives(tailer, 0, 100)
	for range 2 {
		_, err := tailer.Next(background)
		e := l.fails(err, ErrTooLarge)
		l.check(e.Position == position && e.Sequence == 1, "where")
	}
	_, _, err = r.Get(1)
	l.fails(err, ErrTooLarge)
	payload, ok, err := r.Get(2)
	l.check(ok && err == nil && len(payload) == 5, "the one behind it")

	l = newLog(t) // a hole bears the size out
	l.size(1<<30 + 1)
	l.store()
	l.cut(1 << 31)
	_, err = l.tail(Beginning).Next(background)
	l.fails(err, ErrTooLarge)
}

func TestTellsWhatIsNoLog(t *testing.T) {
	l := newLog(t)
	socket, fifo := filepath.Join(l.dir, "socket"), filepath.Join(l.dir, "fifo")
	listener, err := net.Listen("unix", socket)
	l.ok(err)
	defer listener.Close()
	l.ok(syscall.Mkfifo(fifo, 0o600))
	for _, path := range []string{l.dir, socket, fifo, "/dev/null"} {
		_, err := Open(path, nil)
		l.fails(err, ErrNotALog)
	}
	_, err = Open(l.path+".none", nil)
	l.fails(err, ErrNotFound)
	l.check(errors.Is(err, fs.ErrNotExist), "also fs.ErrNotExist")
	_, err = Open(l.path+"/below", nil)
	l.fails(err, syscall.ENOTDIR)
}

// The log that is followed is cut, or overwritten with less, by another program.
func TestTellsACutFile(t *testing.T) {
	for way := range 6 {
		l := newLog(t)
		l.lock()
		if way&1 != 0 {
			l.begin(3)
		}
		l.add(1000)
		tailer := l.tail(Beginning)
		l.gives(tailer, 0, 1000)
		switch {
		case way >= 4:
			l.raw(0, 0) // the count fell
		case way&2 != 0:
			l.cut(0)
		default:
			l.cut(500)
		}
		var err error
		for until := time.Now().Add(2100 * time.Millisecond); way == 5 && err == nil && time.Now().Before(until); time.Sleep(time.Millisecond) {
			l.set(256, uint64(monotonic())) // the writer lives, and does not notice
			_, _, err = tailer.TryNext()
		}
		for range 2 {
			if way == 5 {
				_, _, err = tailer.TryNext()
			} else {
				_, err = tailer.NextTimeout(20 * time.Second)
			}
			l.damaged(err, 0, 0)
		}
	}
}

func TestTellsAReplacedLog(t *testing.T) {
	for way := range 4 {
		l := newLog(t)
		l.lock()
		if way&1 != 0 {
			l.begin(3)
		}
		l.add(10)
		tailer := l.tail(Beginning)
		l.gives(tailer, 0, 10)
		l.add(20)
		if way&2 != 0 {
			l.ok(os.WriteFile(l.path+".new", nil, 0o644))
			l.ok(os.Rename(l.path+".new", l.path))
		} else {
			l.ok(os.Remove(l.path))
		}
		l.gives(tailer, 1, 20) // what was readable comes first
		for range 2 {
			_, err := tailer.NextTimeout(20 * time.Second)
			l.fails(err, ErrReplaced)
		}
	}
}

func TestWaitsForALog(t *testing.T) {
	l := newLog(t)
	os.Remove(l.path)
	begun := time.Now()
	_, err := Open(l.path, &Options{WaitForLog: 30 * time.Millisecond})
	l.fails(err, ErrNotFound)
	l.check(time.Since(begun) >= 30*time.Millisecond, "it waits")
	opened := make(chan error)
	go func() {
		r, err := Open(l.path, &Options{WaitForLog: 20 * time.Second})
		if err == nil {
			err = r.Close()
		}
		opened <- err
	}()
	l.create()
	l.ok(<-opened)
}

func TestTimesOut(t *testing.T) {
	for _, paged := range []bool{false, true} {
		l := newLog(t)
		l.lock()
		if paged {
			l.begin(3)
		}
		tailer := l.tail(End)
		begun := time.Now()
		l.idles(tailer, 60*time.Millisecond)
		l.check(time.Since(begun) >= 60*time.Millisecond && time.Since(begun) < 2*time.Second, "it took %v", time.Since(begun))
		l.idles(tailer, 0)
		l.add(3)
		l.gives(tailer, 0, 3)
	}
}

func TestStops(t *testing.T) {
	for way := range 4 {
		best := time.Hour
		for range 5 { // the best of some, as the machine may be busy
			l := newLog(t)
			l.lock()
			if way&1 != 0 {
				l.begin(3)
			}
			tailer := l.tail(End)
			ctx, cancel := context.WithCancelCause(background)
			stopped := make(chan time.Time, 1)
			why := errors.New("enough")
			time.AfterFunc(30*time.Millisecond, func() {
				stopped <- time.Now()
				if way&2 != 0 {
					cancel(why)
				} else {
					tailer.Stop()
				}
			})
			_, err := tailer.Next(ctx)
			best = min(best, time.Since(<-stopped))
			if way&2 != 0 {
				l.fails(err, why)
			} else {
				l.fails(err, ErrStopped)
				_, err = tailer.Next(background) // for good
				l.fails(err, ErrStopped)
			}
			cancel(nil)
		}
		if best >= 50*time.Millisecond {
			t.Fatalf("it takes %v", best)
		}
	}
}

// A count that never holds still while it is read twice, over records of no bytes.
func TestReadsARestlessCount(t *testing.T) {
	const countless = 4_000_000_000
	defer func(tries int) { countTries = tries }(countTries)
	countTries = 1 // on a busy machine the two are seldom at work at once for longer
	l := newLog(t)
	l.cut(8 + 8*countless) // a hole
	m, err := syscall.Mmap(int(l.file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	l.ok(err)
	defer syscall.Munmap(m)
	r, tailer := l.open(nil), l.tail(Beginning)
	var enough atomic.Bool
	done := make(chan bool)
	go func() {
		for n := uint64(1); n <= countless && !enough.Load(); n++ {
			atomic.StoreUint64(word(m, 0), n)
		}
		close(done)
	}()
	l.eventually("it counts", func() bool { return atomic.LoadUint64(word(m, 0)) > 0 })
	var before uint64
	until := time.Now().Add(20 * time.Second)
	for moved := 0; moved < 1000; { // both are at work
		count, err := r.Count()
		l.ok(err)
		l.check(time.Now().Before(until), "both are at work within 20 s")
		if count > before {
			moved++
		}
		l.check(count >= before && count <= atomic.LoadUint64(word(m, 0)), "count %d after %d", count, before)
		before = count
		for range 100 {
			record, err := tailer.NextTimeout(20 * time.Second)
			l.check(err == nil && len(record.Payload) == 0, "record: %v", err)
		}
	}
	enough.Store(true)
	<-done
}

func TestClosed(t *testing.T) {
	l := newLog(t)
	l.add(1)
	r, err := Open(l.path, nil)
	l.ok(err)
	tailer, err := r.Tail(Beginning)
	l.ok(err)
	l.ok(r.Close())
	l.gives(tailer, 0, 1) // it outlives its reader
	l.ok(tailer.Close())
	_, err = tailer.Next(background)
	l.fails(err, os.ErrClosed)
	_, err = r.Count()
	l.fails(err, os.ErrClosed)
	l.check(fmt.Sprint(Alive, Closed, Gone, Failed) == "alive closed gone failed", "names of states")
}

// The way out for such a count, by itself: on a busy machine the two above are seldom at work at the same instant.
func TestMapsACount(t *testing.T) {
	l := newLog(t)
	l.add(1)
	count, err := mappedCount(l.file)
	l.check(err == nil && count == 1, "count %d: %v", count, err)
	l.cut(0)
	_, err = mappedCount(l.file) // beyond the end of the file: an error, not the end of the process
	l.fails(refused(l.path, "mapping", err), syscall.EFAULT)
}
