package immuta

import (
	"math/rand"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// followsPage tells whether a reader follows the page: a record that only the log counts is not there for it then.
func (l *testLog) followsPage() bool {
	l.Helper()
	l.put(1)
	l.store()
	_, ok, err := l.tail(Sequence(l.count - 1)).TryNext()
	l.ok(err)
	return !ok
}

func TestBelievesOnlyItsPage(t *testing.T) {
	l := newLog(t)
	l.lock()
	l.begin(7)
	l.check(l.followsPage(), "it is followed")
	for _, wrong := range []struct {
		at int
		n  uint64
	}{{0, 1}, {8, 2}, {16, 8192}, {24, 1}, {32, 1}, {40, 1}, {48, 1}, {56, 1}, {520, 1000}, {528, 100000}} {
		right := *word(l.page, wrong.at)
		l.set(wrong.at, wrong.n)
		l.check(!l.followsPage(), "with %d at %d it is not", wrong.n, wrong.at)
		l.set(wrong.at, right)
		l.check(l.followsPage(), "it is followed again")
	}
	l.set(40, 0)
	l.check(l.followsPage(), "it does not know when the log was created")
	for state, follows := range map[uint64]bool{stateOpen: true, stateClosed: false, stateFailed: true, stateSuperseded: false} {
		l.set(128, state)
		l.check(l.followsPage() == follows, "with state %d it is followed: %v", state, follows)
	}
	l.set(128, stateOpen)
	name := l.name("")
	l.ok(os.Rename(name, name+".other"))
	l.ok(os.Symlink(name+".other", name))
	l.check(!l.followsPage(), "a link is not")
	l.ok(os.Rename(name+".other", name))
	l.ok(os.Truncate(name, 4095))
	l.check(!l.followsPage(), "a short one is not")
	l.ok(os.Remove(name))
	l.check(!l.followsPage(), "none is not")
	if os.Geteuid() != 0 {
		t.Skip("a page of another owner: this needs root")
	}
	l.begin(8)
	l.ok(os.Chown(name, 12345, -1))
	l.check(!l.followsPage(), "a stranger's is not")
	l.ok(l.file.Chown(12345, -1))
	l.check(l.followsPage(), "the log's owner's is")
	l.ok(os.Chown(name, 0, -1))
	l.check(l.followsPage(), "root's is")
}

func TestFollowsOnlyTheLiving(t *testing.T) {
	l := newLog(t)
	l.begin(7)
	l.check(!l.followsPage(), "nobody has the lock")
	l.lock()
	l.check(l.followsPage(), "it lives")
	l.set(256, uint64(monotonic()-int64(2100*time.Millisecond)))
	l.check(!l.followsPage(), "its heart has stopped")
	l.set(256, uint64(monotonic()+int64(time.Hour))) // another clock's, which may be a dead one's
	l.check(!l.followsPage(), "its heart beats in the future")

	tailer := l.tail(End)
	l.nothing(tailer)
	l.set(256, *word(l.page, 256)+1) // but it moves
	l.idles(tailer, 250*time.Millisecond)
	l.put(1)
	l.store()
	l.nothing(tailer)
	// It does not move any more, and the count is ahead: another writer is at work.
	begun := time.Now()
	l.gives(tailer, l.count-1, 1)
	l.check(time.Since(begun) > time.Second, "after a while")
}

func TestBelievesThePageOfAnEmptyLog(t *testing.T) {
	l := newLog(t)
	l.cut(0)
	l.lock()
	l.begin(7)
	tailer := l.tail(Beginning)
	l.put(1)
	l.store()
	l.nothing(tailer) // the page says nothing of it yet
	l.publish()
	l.gives(tailer, 0, 1)
}

// A writer dies, and one without a page begins while the dead one's heartbeat is young.
func TestDoesNotGoBackToADeadPage(t *testing.T) {
	l := newLog(t)
	l.lock()
	l.begin(7)
	l.add(1)
	tailer := l.tail(End)
	page, bell := l.page, l.bell
	l.page, l.bell = nil, nil
	l.die()
	l.page, l.bell = page, bell
	l.idles(tailer, 150*time.Millisecond) // it sees that
	l.lock()
	l.idles(tailer, 150*time.Millisecond)
	l.put(2)
	l.store()
	record, ok, err := tailer.TryNext()
	l.check(ok && err == nil, "it follows the count: %v", err)
	l.same(record, 1, 2)
	l.set(256, *word(l.page, 256)+1) // not dead after all
	l.idles(tailer, 150*time.Millisecond)
	l.put(3)
	l.store()
	l.nothing(tailer)
}

// Goes to sleep on the futex, and is woken by it: FUTEX_WAKE finds a sleeper.
func TestSleepsAndIsWoken(t *testing.T) {
	l := newLog(t)
	l.lock()
	l.begin(7)
	l.add(3)
	tailer := l.tail(End)
	woken := 0
	for i := uint64(1); i <= 20; i++ {
		done := make(chan error)
		var record Record
		go func() {
			var err error
			record, err = tailer.Next(background)
			done <- err
		}()
		l.eventually("somebody announces a sleep", l.announced)
		time.Sleep(2 * time.Millisecond) // between announcing and sleeping; a few of the 20 may miss it
		l.put(i)
		l.store()
		n := l.publish()
		l.check(n >= 0, "it was announced")
		woken += n
		l.ok(<-done)
		l.same(record, i, i)
	}
	l.check(woken >= 5, "it was asleep: %d of 20", woken)
	high := *word(l.bell, 128) + 1000
	atomic.StoreUint64(word(l.bell, 128), high)
	l.idles(tailer, 30*time.Millisecond)
	l.check(atomic.LoadUint64(word(l.bell, 128)) == high, "nobody lowers what is announced")
	for at := 24; at < 4096; at += 8 {
		l.check(at == 128 || *word(l.bell, at) == 0, "nothing else is written")
	}
}

// A doorbell of another run is left alone, and the page is looked at from time to time.
func TestDoesWithoutADoorbell(t *testing.T) {
	l := newLog(t)
	l.lock()
	l.begin(7)
	atomic.StoreUint64(word(l.bell, 16), 8)
	tailer := l.tail(End)
	for i := range uint64(5) {
		done := make(chan bool)
		time.AfterFunc(5*time.Millisecond, func() { l.add(i); close(done) })
		l.gives(tailer, i, i)
		<-done
	}
	l.check(*word(l.bell, 128) == 0, "nothing is announced")
}

// Where the system refuses the futex, as a sandbox may, it looks from time to time, and announces no sleep any more.
func TestDoesWithoutTheFutex(t *testing.T) {
	defer func(number uintptr) { futex = number }(futex)
	futex = 1 << 20 // ENOSYS
	l := newLog(t)
	l.lock()
	l.begin(7)
	tailer := l.tail(End)
	l.idles(tailer, 150*time.Millisecond)
	atomic.StoreUint64(word(l.bell, 128), 0)
	l.idles(tailer, 250*time.Millisecond)
	l.check(*word(l.bell, 128) == 0, "it tries no more")
	l.add(5)
	l.gives(tailer, 0, 5)
}

// The tailer goes on over a writer's close and kill, and over the next one's page, without being opened again.
func TestSurvivesRestarts(t *testing.T) {
	l := newLog(t)
	tailer := l.tail(Beginning)
	n := uint64(0)
	for life := uint64(1); life <= 6; life++ {
		l.lock()
		if life != 3 {
			l.begin(life) // the third writer has none; the fourth finds a dead one's
		}
		for range 5 {
			l.add(n)
			l.gives(tailer, n, n)
			n++
		}
		l.idles(tailer, 150*time.Millisecond) // time to find the page, and to sleep on it
		l.check(life == 3 || l.announced(), "it sleeps")
		switch {
		case life%2 == 1 && l.page != nil: // closes; otherwise is killed
			l.set(128, 2)
			l.publish()
			l.remove()
		case life == 4:
			l.put(n) // killed between its stores of the count and of the page
			l.store()
			l.die()
			l.gives(tailer, n, n)
			n++
		}
		l.die()
	}
}

func TestIsSuperseded(t *testing.T) {
	l := newLog(t)
	l.lock()
	l.begin(1)
	l.add(1)
	tailer := l.tail(End)
	old := *l
	l.page, l.bell = nil, nil
	l.begin(2) // under the same name
	old.set(128, 4)
	l.add(2)
	record, ok, err := tailer.TryNext() // at once, not when it is next due
	l.check(ok && err == nil, "it is there: %v", err)
	l.same(record, 1, 2)
	l.idles(tailer, 50*time.Millisecond)
	l.check(l.announced(), "it sleeps on the new page")
	old.forget()
}

func (l *testLog) state() WriterState {
	l.Helper()
	r := l.open(nil)
	byReader, err := r.Writer()
	l.ok(err)
	byTailer, err := l.tail(Beginning).Writer()
	l.check(err == nil && byReader == byTailer, "both say so")
	return byReader
}

func TestTellsWhoIsWriting(t *testing.T) {
	l := newLog(t)
	is := func(state WriterState) {
		t.Helper()
		if got := l.state(); got != state {
			t.Fatalf("%v, not %v", got, state)
		}
	}
	l.add(5)
	is(Closed) // no page, and the file ends exactly
	l.cut(4096)
	is(Gone)
	l.lock()
	is(Alive)
	l.begin(4)
	is(Alive)
	l.set(128, 3)
	is(Failed)
	l.set(256, 1) // an earlier writer's page
	is(Alive)
	page, bell := l.page, l.bell
	l.page, l.bell = nil, nil
	l.die()
	l.page, l.bell = page, bell
	is(Failed)
	l.set(128, 2)
	is(Closed)
	l.set(128, 1)
	l.cut(l.end)
	is(Gone) // the page says so, though the file ends exactly
	l.remove()
	is(Closed)
	l.cut(0)
	is(Closed) // a log without records
}

// A writer in another process, which is this program again, that is killed.
func TestSeesAWriterDie(t *testing.T) {
	if path := os.Getenv("TEST_WRITER_OF"); path != "" {
		l := &testLog{T: t, path: path}
		l.die()
		l.lock()
		l.put0(10)
		os.Stdout.WriteString("x")
		select {}
	}
	l := newLog(t)
	command := exec.Command(os.Args[0], "-test.run=^TestSeesAWriterDie$")
	command.Env = append(os.Environ(), "TEST_WRITER_OF="+l.path)
	out, err := command.StdoutPipe()
	l.ok(err)
	l.ok(command.Start())
	defer command.Wait()
	defer command.Process.Kill()
	_, err = out.Read(make([]byte, 1))
	l.ok(err)
	tailer := l.tail(Beginning)
	l.gives(tailer, 0, 10)
	state, err := tailer.Writer()
	l.check(err == nil && state == Alive, "%v is alive", state)
	l.ok(command.Process.Kill())
	command.Wait()
	l.cut(1 << 16)
	state, err = tailer.Writer()
	l.check(err == nil && state == Gone, "%v is gone", state)
}

func (l *testLog) put0(size uint64) {
	l.end = 8
	l.put(size)
	l.store()
}

func TestFollowsALiveWriter(t *testing.T) {
	const many = 60000
	for _, paged := range []bool{false, true} {
		l := newLog(t)
		l.lock()
		if paged {
			l.begin(1)
		}
		tailer := l.tail(Beginning)
		done := make(chan bool)
		go func() {
			defer close(done)
			random := rand.New(rand.NewSource(1))
			for i := range many {
				size := uint64(random.Intn(128))
				if i%10 == 0 {
					l.put(size) // a batch of two
				} else {
					l.add(size)
				}
				if i%2000 == 0 {
					time.Sleep(time.Millisecond) // so that the follower sleeps at times
				}
			}
		}()
		random := rand.New(rand.NewSource(1))
		batch := make([]Record, 64)
		for i := uint64(0); i < many; {
			n, err := tailer.NextBatch(background, batch)
			l.ok(err)
			for _, record := range batch[:n] {
				l.same(record, i, uint64(random.Intn(128)))
				i++
			}
		}
		<-done
	}
}
