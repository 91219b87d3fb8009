package immuta

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// testLog is a writer, made from FORMAT.md, that can be told to do each thing wrong.
type testLog struct {
	*testing.T
	dir, path         string
	file              *os.File
	device, inode     uint64
	birth, count, end uint64
	page, bell        []byte
}

var background = context.Background()

// newLog makes a log without records, in a directory that is its control directory too.
func newLog(t *testing.T) *testLog {
	l := &testLog{T: t, dir: t.TempDir()}
	l.path = filepath.Join(l.dir, "test.log")
	t.Setenv("IMMUTA_CONTROL_DIR", l.dir)
	l.create()
	t.Cleanup(func() { l.forget(); l.file.Close() })
	return l
}

func (l *testLog) ok(err error) {
	if err != nil {
		l.Helper()
		l.Fatal(err)
	}
}

func (l *testLog) check(is bool, what string, args ...any) {
	if !is {
		l.Helper()
		l.Fatalf("not so: "+what, args...)
	}
}

func (l *testLog) create() {
	if l.file != nil {
		l.file.Close()
		os.Remove(l.path)
	}
	var err error
	l.file, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	l.ok(err)
	stat, err := l.file.Stat()
	l.ok(err)
	raw := stat.Sys().(*syscall.Stat_t)
	l.device, l.inode, l.birth = uint64(raw.Dev), raw.Ino, birth(l.file.Fd())
	l.count, l.end = 0, 8
	l.store()
}

func payloadOf(sequence, size uint64) []byte {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(int(sequence+1)*131 + i*7 + i>>8 + i>>16)
	}
	return payload
}

func (l *testLog) raw(position, number uint64) {
	_, err := l.file.WriteAt(binary.LittleEndian.AppendUint64(nil, number), int64(position))
	l.ok(err)
}

func (l *testLog) cut(size uint64) { l.ok(l.file.Truncate(int64(size))) }

// size writes only a size field, put a record; store makes them count; add does it all, also in the control page.
func (l *testLog) size(size uint64) {
	l.raw(l.end, size)
	l.end += 8
	l.count++
}

func (l *testLog) put(size uint64) {
	_, err := l.file.WriteAt(append(binary.LittleEndian.AppendUint64(nil, size), payloadOf(l.count, size)...), int64(l.end))
	l.ok(err)
	l.end += 8 + size
	l.count++
}

func (l *testLog) store() { l.raw(0, l.count) }

func (l *testLog) add(size uint64) {
	l.put(size)
	l.store()
	if l.page != nil {
		l.publish()
	}
}

func (l *testLog) lock() {
	l.ok(syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	l.ok(syscall.FcntlFlock(l.file.Fd(), 37, &syscall.Flock_t{Type: syscall.F_WRLCK, Start: 9223372036854775806, Len: 1}))
}

// die closes the descriptor, as death does, and opens another.
func (l *testLog) die() {
	l.forget()
	l.file.Close()
	var err error
	l.file, err = os.OpenFile(l.path, os.O_RDWR, 0)
	l.ok(err)
}

func word(m []byte, at int) *uint64     { return (*uint64)(unsafe.Pointer(&m[at])) }
func (l *testLog) set(at int, n uint64) { atomic.StoreUint64(word(l.page, at), n) }

func (l *testLog) name(suffix string) string {
	return fmt.Sprintf("%s/immuta-%d-%d%s", l.dir, l.device, l.inode, suffix)
}

func (l *testLog) control(suffix string) []byte {
	file, err := os.OpenFile(l.name(suffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	l.ok(err)
	defer file.Close()
	l.ok(file.Truncate(4096))
	m, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	l.ok(err)
	return m
}

// begin makes page and doorbell, as of event 0.
func (l *testLog) begin(epoch uint64) {
	l.forget()
	l.page, l.bell = l.control(".new"), l.control(".bell.new")
	*word(l.bell, 8), *word(l.bell, 16) = 1, epoch
	copy(l.bell, "immutaDB")
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	l.ok(err)
	boot, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	l.ok(err)
	for at, n := range map[int]uint64{8: 1, 16: 4096, 24: l.device, 32: l.inode, 40: l.birth, 48: binary.BigEndian.Uint64(boot), 56: binary.BigEndian.Uint64(boot[8:]),
		80: epoch, 128: 1, 256: uint64(monotonic()), 384: l.end, 520: l.count, 528: l.end} {
		l.set(at, n)
	}
	copy(l.page, "immutaCP")
	l.ok(os.Rename(l.name(".bell.new"), l.name(".bell")))
	l.ok(os.Rename(l.name(".new"), l.name("")))
}

func (l *testLog) forget() {
	if l.page != nil {
		syscall.Munmap(l.page)
		syscall.Munmap(l.bell)
	}
	l.page, l.bell = nil, nil
}

func (l *testLog) remove() {
	os.Remove(l.name(""))
	os.Remove(l.name(".bell"))
	l.forget()
}

// wake gives how many it woke, or -1 where nobody had announced a sleep.
func wake(page, bell []byte) int {
	commit, announced := atomic.LoadUint64(word(page, 392)), atomic.LoadUint64(word(bell, 128))
	if announced == 0 || announced > commit+1 {
		return -1
	}
	n, _, _ := syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&page[392])), 1, 1<<31-1, 0, 0, 0)
	return int(n)
}

func (l *testLog) publish() int {
	commit := atomic.LoadUint64(word(l.page, 392)) + 1
	slot := 512 + 32*int(commit%32)
	l.set(slot+8, l.count)
	l.set(slot+16, l.end)
	l.set(256, uint64(monotonic()))
	l.set(384, l.end)
	l.set(392, commit)
	return wake(l.page, l.bell)
}

func (l *testLog) announced() bool {
	return atomic.LoadUint64(word(l.bell, 128)) == atomic.LoadUint64(word(l.page, 392))+1
}

func (l *testLog) eventually(what string, is func() bool) {
	l.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond / 4) {
		l.check(time.Now().Before(until), "%s, within 20 s", what)
	}
}

// index appends pieces of numbers to LOG.idx, each with its checksum.
func (l *testLog) index(truncate bool, pieces ...[7]uint64) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if truncate {
		flags |= os.O_TRUNC
	}
	file, err := os.OpenFile(l.path+".idx", flags, 0o644)
	l.ok(err)
	defer file.Close()
	for _, numbers := range pieces {
		var piece []byte
		for _, n := range numbers {
			piece = binary.LittleEndian.AppendUint64(piece, n)
		}
		piece = append(piece, 0, 0, 0, 0)
		piece = binary.LittleEndian.AppendUint32(piece, crc32.Checksum(piece, crc32.MakeTable(crc32.Castagnoli)))
		_, err := file.Write(piece)
		l.ok(err)
	}
}

func (l *testLog) header(inode, birth uint64) [7]uint64 {
	return [7]uint64{binary.LittleEndian.Uint64([]byte("immutaIX")), 1, 11, 22, inode, birth, 33}
}

func (l *testLog) block(first, position, length, records uint64) [7]uint64 {
	covered := make([]byte, length)
	_, err := l.file.ReadAt(covered, int64(position))
	l.ok(err)
	return [7]uint64{first, position, length, records, 44, 1 | uint64(crc32.Checksum(covered, crc32.MakeTable(crc32.Castagnoli)))<<32, 0}
}

func (l *testLog) open(options *Options) *Reader {
	l.Helper()
	r, err := Open(l.path, options)
	l.ok(err)
	l.Cleanup(func() { r.Close() })
	return r
}

func (l *testLog) tail(start Start) *Tailer {
	l.Helper()
	t, err := l.open(nil).Tail(start)
	l.ok(err)
	l.Cleanup(func() { t.Close() })
	return t
}

func (l *testLog) same(r Record, sequence, size uint64) {
	l.Helper()
	l.check(r.Sequence == sequence && uint64(len(r.Payload)) == size, "record %d of %d bytes is %d of %d", sequence, size, r.Sequence, len(r.Payload))
	l.check(bytes.Equal(r.Payload, payloadOf(sequence, size)), "the payload of record %d is right", sequence)
}

func (l *testLog) gives(t *Tailer, sequence, size uint64) {
	l.Helper()
	r, err := t.NextTimeout(20 * time.Second)
	l.ok(err)
	l.same(r, sequence, size)
}

func (l *testLog) nothing(t *Tailer) {
	l.Helper()
	_, ok, err := t.TryNext()
	l.check(!ok && err == nil, "there is nothing: %v", err)
}

// idles waits in vain.
func (l *testLog) idles(t *Tailer, limit time.Duration) {
	l.Helper()
	_, err := t.NextTimeout(limit)
	l.fails(err, ErrTimedOut)
}

func (l *testLog) fails(err, kind error) *Error {
	l.Helper()
	var e *Error
	l.check(errors.Is(err, kind) && errors.As(err, &e), "%v is %v", err, kind)
	return e
}

func (l *testLog) damaged(err error, position, sequence uint64) {
	l.Helper()
	e := l.fails(err, ErrDamaged)
	begins := fmt.Sprintf("%s: damaged at position %d, record %d: ", l.path, position, sequence)
	l.check(e.Position == position && e.Sequence == sequence && strings.HasPrefix(err.Error(), begins), "%q begins with %q", err, begins)
}
