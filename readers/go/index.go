package immuta

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
)

const (
	pieceBytes = 64
	budget     = 4096 // pieces of an index that may be useless before it is given up
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// index is LOG.idx, opened.
type index struct {
	file   *os.File
	budget int
	pieces uint64
	first  uint64 // piece of the cache
	cached []byte
	cache  [4096]byte
}

// piece is a piece of the index; nil where it is none. Valid until the next call.
func (x *index) piece(i uint64) []byte {
	const each = uint64(len(x.cache) / pieceBytes)
	if i < x.first || (i-x.first+1)*pieceBytes > uint64(len(x.cached)) {
		x.first = i - i%each
		n, err := readAt(x.file, x.cache[:], x.first*pieceBytes)
		if err != nil {
			n = 0
		}
		if x.cached = x.cache[:n]; (i-x.first+1)*pieceBytes > uint64(n) {
			return nil
		}
	}
	p := x.cached[(i-x.first)*pieceBytes:][:pieceBytes]
	if crc32.Checksum(p[:60], castagnoli) != binary.LittleEndian.Uint32(p[60:]) {
		return nil
	}
	return p
}

func field(p []byte, at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }

// openIndex opens the index of the log; nil where there is none, or it is another file's.
func (s *source) openIndex() *index {
	real, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return nil
	}
	file, err := os.OpenFile(real+".idx", os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil
	}
	x := &index{file: file, budget: budget}
	if stat, err := file.Stat(); err == nil && stat.Mode().IsRegular() {
		x.pieces = uint64(stat.Size()) / pieceBytes
	}
	if x.pieces > 0 {
		if head := x.piece(0); head != nil && field(head, 0) == magic("immutaIX") && field(head, 8) == 1 && field(head, 32) == s.inode && field(head, 40) == s.birthNs {
			return x
		}
	}
	file.Close()
	return nil
}

// search gives the last entry whose sequence is not greater than target; 0 where there is none. Damaged pieces are stepped
// over, within reason.
func (x *index) search(target uint64) (best uint64) {
	low, high := uint64(1), x.pieces
	for low < high {
		middle := low + (high-low)/2
		i := middle
		p := x.piece(i)
		for p == nil && i > low {
			if x.budget--; x.budget < 0 {
				return 0
			}
			i--
			p = x.piece(i)
		}
		switch {
		case p == nil:
			low = middle + 1
		case field(p, 0) <= target:
			best, low = i, middle+1
		default:
			high = i
		}
	}
	return best
}

// bearsOut tells whether the bytes of a block are those that its checksum is of, so that records begin where it says.
func (t *Tailer) bearsOut(position, length, records uint64, checksum uint32) bool {
	if records == 1 {
		var size [8]byte
		n, err := readAt(t.log.file, size[:], position)
		return err == nil && n == 8 && binary.LittleEndian.Uint64(size[:]) == length-8
	}
	t.have = t.at
	var crc uint32
	for length > 0 {
		part := t.buffer()[:min(length, chunkBytes)]
		if n, err := readAt(t.log.file, part, position); err != nil || n < len(part) {
			return false
		}
		crc = crc32.Update(crc, castagnoli, part)
		position += uint64(len(part))
		length -= uint64(len(part))
	}
	return crc == checksum
}

// find gives a place at or before record target, by the index; false where it has none that is true. count and end are
// what may be read.
func (t *Tailer) find(target, count, end uint64) (sequence, position uint64, ok bool) {
	x := t.log.openIndex()
	if x == nil {
		return 0, 0, false
	}
	defer x.file.Close()
	for i := x.search(target); i > 0 && x.budget > 0; i, x.budget = i-1, x.budget-1 {
		p := x.piece(i)
		if p == nil || p[40] != 1 { // a writer's beginning is no place to rely on: nothing bears it out
			continue
		}
		first, at, length, records := field(p, 0), field(p, 8), field(p, 16), field(p, 24)
		if first > target || first > count || records > count-first || at < 8 || at > end || length > end-at || length < 8 || records == 0 || records > length/8 {
			continue // not in order, covers nothing, or what may not be read yet
		}
		if !t.bearsOut(at, length, records, binary.LittleEndian.Uint32(p[44:])) {
			break
		}
		if target-first >= records {
			return first + records, at + length, true
		}
		return first, at, true
	}
	return 0, 0, false
}
