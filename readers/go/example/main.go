// Example follows a live log, from its last ten records on, until Ctrl-C: go run ./example events.log
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	immuta "immuta/readers/go"
)

func run(path string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	reader, err := immuta.Open(path, nil)
	if err != nil {
		return err
	}
	defer reader.Close()
	tailer, err := reader.Tail(immuta.Last(10))
	if err != nil {
		return err
	}
	defer tailer.Close()
	for record, err := range tailer.Records(ctx) {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("%d: %.200s\n", record.Sequence, record.Payload)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: example LOG")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}
