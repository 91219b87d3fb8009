// Bench measures how fast a log is read from the page cache: one line of JSON for each way, the best of three runs.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	immuta "immuta/readers/go"
)

type pass struct{ records, bytes uint64 }

var sink uintptr // keeps the payloads from being optimised away

func touch(payload []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(payload))) }

func tailed(path string, run func(t *immuta.Tailer) (pass, error)) (pass, error) {
	reader, err := immuta.Open(path, nil)
	if err != nil {
		return pass{}, err
	}
	defer reader.Close()
	t, err := reader.Tail(immuta.Beginning)
	if err != nil {
		return pass{}, err
	}
	defer t.Close()
	return run(t)
}

func byNext(path string) (pass, error) {
	return tailed(path, func(t *immuta.Tailer) (p pass, err error) {
		var sum uintptr
		for {
			r, ok, err := t.TryNext()
			if !ok {
				sink = sum
				return p, err
			}
			p.records++
			p.bytes += uint64(len(r.Payload))
			sum += touch(r.Payload)
		}
	})
}

func byBatch(path string) (pass, error) {
	return tailed(path, func(t *immuta.Tailer) (p pass, err error) {
		var sum uintptr
		records := make([]immuta.Record, 256)
		for {
			n, err := t.TryNextBatch(records)
			if n == 0 {
				sink = sum
				return p, err
			}
			p.records += uint64(n)
			for i := range records[:n] {
				p.bytes += uint64(len(records[i].Payload))
				sum += touch(records[i].Payload)
			}
		}
	})
}

func byRead(path string) (p pass, err error) {
	file, err := os.Open(path)
	if err != nil {
		return p, err
	}
	defer file.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := file.Read(buffer)
		p.bytes += uint64(n)
		if err == io.EOF {
			return p, nil
		}
		if err != nil {
			return p, err
		}
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bench LOG")
		os.Exit(2)
	}
	for _, way := range []struct {
		name string
		run  func(string) (pass, error)
	}{{"next", byNext}, {"next_batch", byBatch}, {"read", byRead}} {
		best := time.Duration(1<<63 - 1)
		var p pass
		for range 3 {
			begun := time.Now()
			var err error
			if p, err = way.run(os.Args[1]); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
			best = min(best, time.Since(begun))
		}
		fmt.Printf("{\"language\":\"go\",\"way\":\"%s\",\"records\":%d,\"bytes\":%d,\"seconds\":%.6f}\n", way.name, p.records, p.bytes, best.Seconds())
	}
}
