// Follow prints sequence, size and checksum of each record of a log, and waits for more.
package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	immuta "immuta/readers/go"
)

const usage = `usage: follow LOG [--skip N] [--count N] [--timeout SECONDS]
Prints "sequence size crc32" for each record of LOG, and waits for more.
  --skip N           begin with record N
  --count N          end after N records
  --timeout SECONDS  end when no record came for so long; wait so long for LOG to appear
exit status: 0 after N records or once nobody reads the output, 2 wrong arguments, 3 no log, 5 damage, 6 timeout, 1 anything else
`

const (
	flushBytes = 64 << 10
	turn       = 200 * time.Millisecond
)

type arguments struct {
	path        string
	skip, count uint64
	counted     bool
	timeout     time.Duration // below 0: none
}

func parse(args []string) (a arguments, err error) {
	a.timeout = -1
	for i := 0; i < len(args); i++ {
		option := args[i]
		switch option {
		case "--skip", "--count", "--timeout":
			if i++; i == len(args) {
				return a, fmt.Errorf("%s wants a value", option)
			}
			switch value := args[i]; option {
			case "--skip":
				a.skip, err = strconv.ParseUint(value, 10, 64)
			case "--count":
				a.count, err = strconv.ParseUint(value, 10, 64)
				a.counted = true
			default:
				a.timeout, err = seconds(value)
			}
			if err != nil {
				return a, fmt.Errorf("%s: %q is no such value", option, args[i])
			}
		default:
			if option == "" || option[0] == '-' {
				return a, fmt.Errorf("no such option: %s", option)
			}
			if a.path != "" {
				return a, fmt.Errorf("one log, not also %s", option)
			}
			a.path = option
		}
	}
	if a.path == "" {
		return a, errors.New("which log?")
	}
	return a, nil
}

func seconds(text string) (time.Duration, error) {
	for _, c := range text {
		if (c < '0' || c > '9') && c != '.' {
			return 0, strconv.ErrSyntax
		}
	}
	s, err := strconv.ParseFloat(text, 64)
	if s > 9e9 {
		return 1<<63 - 1, err
	}
	return time.Duration(s * 1e9), err
}

// output is what is printed, buffered.
type output struct{ bytes []byte }

func (o *output) print(r immuta.Record) {
	o.bytes = strconv.AppendUint(o.bytes, r.Sequence, 10)
	o.bytes = append(o.bytes, ' ')
	o.bytes = strconv.AppendUint(o.bytes, uint64(len(r.Payload)), 10)
	o.bytes = append(o.bytes, ' ')
	crc := crc32.ChecksumIEEE(r.Payload)
	for shift := 28; shift >= 0; shift -= 4 {
		o.bytes = append(o.bytes, "0123456789abcdef"[crc>>shift&15])
	}
	o.bytes = append(o.bytes, '\n')
	if len(o.bytes) >= flushBytes {
		o.flush()
	}
}

// flush writes what is buffered. A reader of our output that has left ends us quietly, and without an error: it has what it wanted.
func (o *output) flush() {
	if len(o.bytes) == 0 {
		return
	}
	if _, err := os.Stdout.Write(o.bytes); err != nil {
		if errors.Is(err, syscall.EPIPE) {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, "follow:", err)
		os.Exit(1)
	}
	o.bytes = o.bytes[:0]
}

// abandoned tells whether nobody reads our output any more.
func abandoned() bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: 1}
	var none syscall.Timespec
	const pollErr = 8
	n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&none)), 0, 0, 0)
	return n == 1 && poll.revents&pollErr != 0
}

func main() {
	a, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "follow: %v\n%s", err, usage)
		os.Exit(2)
	}
	if a.counted && a.count == 0 {
		return
	}
	os.Exit(follow(a))
}

func follow(a arguments) int {
	var stoppedBy atomic.Int32
	var stoppable atomic.Pointer[immuta.Tailer]
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE) // Go would die of it at a write to the standard output
	go func() {
		code := int32(128 + (<-signals).(syscall.Signal))
		stoppedBy.Store(code)
		if t := stoppable.Load(); t != nil {
			t.Stop()
			<-signals // a second one does not wait for our output to be taken
		}
		os.Exit(int(code)) // nothing is printed yet
	}()

	var out output
	err := print(a, &out, &stoppable)
	out.flush()
	switch {
	case err == nil:
		return 0
	case errors.Is(err, immuta.ErrStopped):
		return int(stoppedBy.Load())
	case errors.Is(err, immuta.ErrTimedOut): // its message would be of a turn
		fmt.Fprintf(os.Stderr, "follow: %s: no record within %v\n", a.path, a.timeout)
		return 6
	}
	fmt.Fprintln(os.Stderr, "follow:", err)
	switch {
	case errors.Is(err, immuta.ErrNotFound), errors.Is(err, immuta.ErrReplaced):
		return 3
	case errors.Is(err, immuta.ErrDamaged):
		return 5
	}
	return 1
}

func print(a arguments, out *output, stoppable *atomic.Pointer[immuta.Tailer]) error {
	reader, err := immuta.Open(a.path, &immuta.Options{WaitForLog: max(a.timeout, 0)})
	if err != nil {
		return err
	}
	defer reader.Close()
	t, err := reader.Tail(immuta.Sequence(a.skip))
	if err != nil {
		return err
	}
	defer t.Close()
	stoppable.Store(t)
	records := make([]immuta.Record, 256)
	for left := a.count; ; {
		most := records
		if a.counted {
			most = records[:min(left, uint64(len(records)))]
		}
		n, err := t.TryNextBatch(most)
		if n == 0 && err == nil {
			out.flush()
			most[0], err = next(t, a.timeout)
			n = 1
		}
		if err != nil {
			return err
		}
		for _, r := range most[:n] {
			out.print(r)
		}
		if left -= uint64(n); a.counted && left == 0 {
			return nil
		}
	}
}

// next waits for a record. In turns, between which it is seen that nobody reads our output any more, as that ends us, too.
func next(t *immuta.Tailer, limit time.Duration) (immuta.Record, error) {
	for begun := time.Now(); ; {
		left := turn
		if limit >= 0 {
			left = min(turn, max(limit-time.Since(begun), 0))
		}
		r, err := t.NextTimeout(left)
		if !errors.Is(err, immuta.ErrTimedOut) || (limit >= 0 && time.Since(begun) >= limit) {
			return r, err
		}
		if abandoned() {
			os.Exit(0)
		}
	}
}
