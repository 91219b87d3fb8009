//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package immuta

import (
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// What the package syscall has no name for.
const (
	ofdGetLock  = 36 // F_OFD_GETLK
	dupCloexec  = 1030
	emptyPath   = 0x1000 // AT_EMPTY_PATH
	statxBirth  = 0x800
	futexWait   = 0
	liveByte    = 1<<63 - 2 // the byte that a writer locks
	pageBytes   = 4096
	openFlags   = syscall.O_NONBLOCK | syscall.O_NOCTTY | syscall.O_CLOEXEC
	bootIDFile  = "/proc/sys/kernel/random/boot_id"
	defaultDir  = "/dev/shm"
	defaultSize = 1 << 30
)

// countTries is how often a count that never holds still is read twice before its page is mapped. Tests lower it.
var countTries = 64

// number is the number at offset at of a mapping that another process stores into. sync/atomic's loads are acquire loads,
// and more: nothing that comes later in this goroutine, a pread(2) neither, is done before them.
func number(mapping []byte, at int) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&mapping[at])))
}

// fence orders the loads before it, also those that the kernel made for us in a pread(2), before the ones after it:
// an atomic read-modify-write is a full barrier on all that this is built for.
func fence() {
	var word uint32
	atomic.AddUint32(&word, 1)
}

// monotonic is CLOCK_MONOTONIC, which heartbeats are of and Go does not give out.
func monotonic() int64 {
	var now syscall.Timespec
	const clockMonotonic = 1
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

// readAt reads all of the buffer, unless the file ends before.
func readAt(file *os.File, buffer []byte, position uint64) (int, error) {
	if position > 1<<63-1-uint64(len(buffer)) {
		return 0, nil
	}
	n, err := file.ReadAt(buffer, int64(position))
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// birth is when the file was created, in nanoseconds since 1970; 0 where the file system does not say.
func birth(fd uintptr) uint64 {
	trap := uintptr(291)
	if runtime.GOARCH == "amd64" {
		trap = 332
	}
	var path [1]byte
	var stx [256]byte
	_, _, errno := syscall.Syscall6(trap, fd, uintptr(unsafe.Pointer(&path)), emptyPath, statxBirth, uintptr(unsafe.Pointer(&stx)), 0)
	if errno != 0 || binary.LittleEndian.Uint32(stx[0:])&statxBirth == 0 {
		return 0
	}
	return binary.LittleEndian.Uint64(stx[80:])*1e9 + uint64(binary.LittleEndian.Uint32(stx[88:]))
}

func duplicate(file *os.File) (*os.File, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), dupCloexec, 0)
	runtime.KeepAlive(file)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, file.Name()), nil
}

// locked tells whether a writer holds the log. It takes nothing.
func locked(file *os.File) (bool, error) {
	lock := syscall.Flock_t{Type: syscall.F_RDLCK, Start: liveByte, Len: 1}
	err := syscall.FcntlFlock(file.Fd(), ofdGetLock, &lock)
	runtime.KeepAlive(file)
	return lock.Type != syscall.F_UNLCK, err
}

// futex is the number of the system call. Tests take it away.
var futex uintptr = syscall.SYS_FUTEX

// sleep waits on the low half of the number at offset at, as long as it is expected, for at most limit. False: the system
// does not let us sleep so.
func sleep(mapping []byte, at int, expected uint32, limit time.Duration) bool {
	bound := syscall.NsecToTimespec(int64(limit))
	_, _, errno := syscall.Syscall6(futex, uintptr(unsafe.Pointer(&mapping[at])), futexWait, uintptr(expected), uintptr(unsafe.Pointer(&bound)), 0, 0)
	return errno == 0 || errno == syscall.EAGAIN || errno == syscall.EINTR || errno == syscall.ETIMEDOUT
}

// pause sleeps by a system call: Go's timers keep its scheduler awake for longer, which an idle follower should not cost.
func pause(limit time.Duration) {
	bound := syscall.NsecToTimespec(int64(limit))
	syscall.Nanosleep(&bound, nil)
}

// readCount gives the count in the log, and then the file's size. ok is false where so many records have no room.
func readCount(file *os.File) (count, size uint64, ok bool, err error) {
	var buffer [8]byte
	n, err := readAt(file, buffer[:], 0)
	count = binary.LittleEndian.Uint64(buffer[:])
	for tries := 0; err == nil && n == 8; tries++ {
		if n, err = readAt(file, buffer[:], 0); count == binary.LittleEndian.Uint64(buffer[:]) {
			break
		}
		count = binary.LittleEndian.Uint64(buffer[:])
		if err == nil && n == 8 && tries == countTries { // it grows faster than it can be read twice
			count, err = mappedCount(file)
			break
		}
	}
	if err != nil {
		return 0, 0, false, err
	}
	stat, err := file.Stat()
	if err != nil {
		return 0, 0, false, err
	}
	fence() // bytes that the count covers are read after it
	size = uint64(stat.Size())
	if n == 0 {
		return 0, size, true, nil
	}
	return count, size, n == 8 && size >= 8 && count <= (size-8)/8, nil
}

// mappedCount reads the count by one load. A file that is cut meanwhile is an error, not the end of the process.
func mappedCount(file *os.File) (count uint64, err error) {
	page, err := syscall.Mmap(int(file.Fd()), 0, pageBytes, syscall.PROT_READ, syscall.MAP_SHARED)
	runtime.KeepAlive(file)
	if err != nil {
		return 0, err
	}
	defer syscall.Munmap(page)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = syscall.EFAULT
		}
	}()
	return number(page, 0), nil
}
