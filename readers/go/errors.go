package immuta

import (
	"errors"
	"fmt"
)

// The kinds of an [Error], for [errors.Is]. What the system refuses is of none of these kinds; the error that it gave is
// found by errors.Is and [errors.As].
var (
	// ErrNotFound: there is no file of this name. Also an [io/fs.ErrNotExist].
	ErrNotFound = errors.New("no such log")
	// ErrNotALog: a directory, a socket or the like.
	ErrNotALog = errors.New("not an ordinary file, so not a log")
	// ErrDamaged: the log cannot be what it says; Position and Sequence tell where.
	ErrDamaged = errors.New("damaged")
	// ErrTooLarge: a payload beyond [Options].MaxRecord; Position and Sequence tell which.
	ErrTooLarge = errors.New("too large")
	// ErrReplaced: the log was removed, or another file took its name; all that was readable was delivered.
	ErrReplaced = errors.New("the log was removed, or another file has its name")
	// ErrTimedOut: nothing came within the limit.
	ErrTimedOut = errors.New("timed out")
	// ErrStopped: [Tailer.Stop] was called.
	ErrStopped = errors.New("stopped")
)

// Error is every error of this package.
type Error struct {
	Kind     error  // one of ErrNotFound ... ErrStopped; nil where the system, or a context, is the cause
	Path     string // as it was given
	Position uint64 // of the size field concerned, in bytes; 0 where the count at the log's beginning is wrong, or fell, or the file was cut
	Sequence uint64 // of that record
	Detail   string // what is wrong, for people
	Err      error  // the cause, or nil
}

// Error says path, position and what is wrong.
func (e *Error) Error() string {
	switch {
	case e.Kind == ErrDamaged:
		return fmt.Sprintf("%s: damaged at position %d, record %d: %s", e.Path, e.Position, e.Sequence, e.Detail)
	case e.Kind == nil:
		return fmt.Sprintf("%s: %s: %v", e.Path, e.Detail, e.Err)
	case e.Detail != "":
		return fmt.Sprintf("%s: %s", e.Path, e.Detail)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Kind)
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}

func refused(path, what string, err error) error {
	return &Error{Path: path, Detail: what, Err: err}
}

func (t *Tailer) fail(kind error, detail string, args ...any) error {
	return &Error{Kind: kind, Path: t.log.path, Position: t.position, Sequence: t.sequence, Detail: fmt.Sprintf(detail, args...)}
}

// errNone is for within: there is no record yet.
var errNone = errors.New("no record yet")
