package immuta

import (
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Offsets in the control page and in the doorbell, and states, as FORMAT.md has them.
const (
	cpEpoch     = 80
	cpState     = 128
	cpHeartbeat = 256
	cpEnd       = 384
	cpCommit    = 392
	cpSlots     = 512
	dbAnnounced = 128

	stateOpen       = 1
	stateClosed     = 2
	stateFailed     = 3
	stateSuperseded = 4
)

const (
	dead      = 2 * time.Second // a heartbeat that is older is none
	pairTries = 1000            // the writer may lap a look at its events now and then, not always
)

// source is an opened log and the control page of its writer.
type source struct {
	path, controlDir string
	file             *os.File
	device, inode    uint64
	owner            uint32
	birthNs          uint64
	boot             [2]uint64 // 0 where the kernel does not say

	page                mapping // the believed one that had the name at the last look, or nil
	bell                []byte
	sleepless           bool   // the system refuses the futex: no doorbell is any use
	heartbeat, pageEnd  uint64 // as of the last look
	movedAt             int64  // when one of them was last found another
	moved               bool   // since the page was first seen, or given up
	givenUp             bool   // its writer had ended, or was another: a young heartbeat proves nothing any more
	follows             bool   // the page says how far the log goes
	pageDevice, pageIno uint64
}

// mapping is a control page.
type mapping []byte

func (m mapping) at(offset int) uint64 { return number(m, offset) }

func readBootID() (boot [2]uint64) {
	text, err := os.ReadFile(bootIDFile)
	if err != nil {
		return boot
	}
	id, ok := new(big.Int).SetString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""), 16)
	if !ok || id.BitLen() > 128 {
		return boot
	}
	low := new(big.Int).And(id, new(big.Int).SetUint64(^uint64(0)))
	return [2]uint64{id.Rsh(id, 64).Uint64(), low.Uint64()}
}

// drop gives the page back; the count in the log is followed then.
func (s *source) drop() {
	if s.page != nil {
		syscall.Munmap(s.page)
	}
	if s.bell != nil {
		syscall.Munmap(s.bell)
	}
	s.page, s.bell, s.follows = nil, nil, false
}

func (s *source) close() error {
	s.drop()
	return s.file.Close()
}

func (s *source) controlName(suffix string) string {
	return fmt.Sprintf("%s/immuta-%d-%d%s", s.controlDir, s.device, s.inode, suffix)
}

// mapControl maps an ordinary file of the log's owner, or of root; nil where it is not that.
func (s *source) mapControl(suffix string, write bool) ([]byte, syscall.Stat_t) {
	var stat syscall.Stat_t
	flags, protection := syscall.O_RDONLY, syscall.PROT_READ
	if write {
		flags, protection = syscall.O_RDWR, syscall.PROT_READ|syscall.PROT_WRITE
	}
	fd, err := syscall.Open(s.controlName(suffix), flags|openFlags|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, stat
	}
	defer syscall.Close(fd)
	if syscall.Fstat(fd, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFREG || stat.Size < pageBytes || (stat.Uid != s.owner && stat.Uid != 0) {
		return nil, stat
	}
	bytes, err := syscall.Mmap(fd, 0, pageBytes, protection, syscall.MAP_SHARED)
	if err != nil {
		return nil, stat
	}
	return bytes, stat
}

// pair gives count and end of one event; false where the writer was faster, again and again.
func (m mapping) pair() (count, end uint64, ok bool) {
	for range pairTries {
		commit := m.at(cpCommit)
		slot := cpSlots + 32*int(commit%32)
		count, end = m.at(slot+8), m.at(slot+16)
		if m.at(cpCommit)-commit < 31 {
			return count, end, true
		}
	}
	return 0, 0, false
}

// fits tells whether the page does not claim more than the log has. It looks at the page first: the log is ahead of it.
func (s *source) fits() bool {
	count, end, ok := s.page.pair()
	if !ok || end < 8 || s.page.at(cpEnd) < 8 {
		return false
	}
	records, size, ok, err := readCount(s.file)
	return err == nil && ok && count <= records && (end <= size || (end == 8 && size == 0))
}

func magic(text string) uint64 {
	var bytes [8]byte
	copy(bytes[:], text)
	return *(*uint64)(unsafe.Pointer(&bytes))
}

// findPage looks up the page's name; s.page is then the one that has it, or nil where there is none that may be believed.
func (s *source) findPage() {
	var stat syscall.Stat_t
	if s.page != nil && syscall.Lstat(s.controlName(""), &stat) == nil && uint64(stat.Dev) == s.pageDevice && stat.Ino == s.pageIno {
		return
	}
	s.drop()
	bytes, stat := s.mapControl("", false)
	if bytes == nil {
		return
	}
	p := mapping(bytes)
	s.page = p
	ours := p.at(0) == magic("immutaCP") && p.at(8) == 1 && p.at(16) == pageBytes && p.at(24) == s.device && p.at(32) == s.inode &&
		(p.at(40) == s.birthNs || p.at(40) == 0) && p.at(48) == s.boot[0] && p.at(56) == s.boot[1] && s.boot != [2]uint64{}
	if !ours || !s.fits() {
		s.drop()
		return
	}
	s.pageDevice, s.pageIno = uint64(stat.Dev), stat.Ino
	s.seen()
	s.givenUp, s.movedAt = false, monotonic()
}

// seen: from here on the page is to move anew.
func (s *source) seen() {
	s.heartbeat, s.pageEnd, s.moved = s.page.at(cpHeartbeat), s.page.at(cpEnd), false
}

func (s *source) giveUp() {
	s.seen()
	s.givenUp, s.follows = true, false
}

func (s *source) findBell() {
	if s.bell != nil || s.sleepless {
		return
	}
	bell, _ := s.mapControl(".bell", true)
	switch {
	case bell == nil:
	case number(bell, 0) == magic("immutaDB") && number(bell, 8) == 1 && number(bell, 16) == s.page.at(cpEpoch):
		s.bell = bell
	default:
		syscall.Munmap(bell) // another run's
	}
}

// beats tells whether the page's heart beats: it is young, or has moved before our eyes (clocks differ between time namespaces).
func (s *source) beats(now int64) bool {
	heartbeat, end := s.page.at(cpHeartbeat), s.page.at(cpEnd)
	if heartbeat != s.heartbeat || end != s.pageEnd {
		s.heartbeat, s.pageEnd, s.moved, s.movedAt = heartbeat, end, true, now
	}
	return (s.moved && now-s.movedAt < int64(dead)) || (!s.givenUp && uint64(now)-heartbeat < uint64(dead)) // one of the future wraps around
}

// look looks the page's name up, and decides whether it, or the count in the log, says how far the log goes.
func (s *source) look(now int64) {
	s.findPage()
	if s.page == nil {
		return
	}
	beats := s.beats(now)
	held, err := locked(s.file)
	switch {
	case err != nil || !held:
		s.giveUp()
	case !s.follows:
		state := s.page.at(cpState)
		s.follows = beats && (state == stateOpen || state == stateFailed) && s.fits()
	case now-s.movedAt >= int64(dead):
		count, _, ok := s.page.pair()
		records, _, believed, err := readCount(s.file)
		if !ok || err != nil || !believed || records > count {
			s.giveUp() // a writer without a page of its own is at work behind a dead one's
		}
	}
	if s.follows {
		s.findBell()
	}
}

func (s *source) state() uint64 {
	if !s.follows {
		return stateOpen
	}
	return s.page.at(cpState)
}

// sleepOn goes to sleep until there is an event, unless there is more than position already.
func (s *source) sleepOn(position uint64, limit time.Duration) {
	commit := s.page.at(cpCommit)
	if s.page.at(cpEnd) > position {
		return
	}
	announced := (*uint64)(unsafe.Pointer(&s.bell[dbAnnounced]))
	// Always a read-modify-write, which is the full fence against the writer's between its store of commit and its load of
	// announced: one of the two sees the other's store.
	for {
		seen := atomic.LoadUint64(announced)
		if atomic.CompareAndSwapUint64(announced, seen, max(seen, commit+1)) {
			break
		}
	}
	if s.page.at(cpCommit) == commit && !sleep(s.page, cpCommit, uint32(commit), limit) {
		syscall.Munmap(s.bell) // a sandbox, most likely; without a sleep this would be a busy loop
		s.bell, s.sleepless = nil, true
	}
}

// WriterState is who is writing a log.
type WriterState int

const (
	Alive  WriterState = iota // a process holds the log for writing
	Closed                    // nobody does; the last one closed it
	Gone                      // nobody does; the last one was killed
	Failed                    // a flush failed: that writer publishes nothing more
)

// String is one of alive, closed, gone and failed.
func (s WriterState) String() string {
	return [...]string{"alive", "closed", "gone", "failed"}[s]
}

// goneLooks: a writer that begins and ends within one look must not pass for a dead one.
const goneLooks = 3

// writer asks who is writing; walk is used where only the file can tell.
func (s *source) writer(walk *Tailer) (WriterState, error) {
	for looks := 1; ; looks++ {
		held, err := locked(s.file)
		if err != nil {
			return 0, refused(s.path, "asking for the writer's lock", err)
		}
		s.findPage()
		var state uint64
		if s.page != nil {
			state = s.page.at(cpState)
		}
		switch {
		case held && state == stateFailed && s.beats(monotonic()):
			return Failed, nil
		case held:
			return Alive, nil
		case state == stateFailed:
			return Failed, nil
		case state == stateClosed:
			return Closed, nil
		}
		if s.page == nil {
			exactly, err := walk.endsExactly()
			if err != nil {
				return 0, err
			}
			if exactly {
				return Closed, nil
			}
		}
		if looks == goneLooks {
			return Gone, nil
		}
	}
}
