#!/usr/bin/env python3
"""Prints what is appended to a log from now on, and survives its writers. Ctrl-C ends it.

python3 example/tail.py events.log     # and in another terminal: immuta append events.log
"""

import sys

import immuta


def main(path: str) -> None:
    print(f"waiting for {path}", file=sys.stderr)
    with immuta.Reader.open(path, wait_for_log=60) as reader, reader.tail(immuta.Start.end()) as tailer:
        print(f"{reader.count()} records, writer {reader.writer().value}", file=sys.stderr)
        while True:
            try:
                record = tailer.next_timeout(5)
            except immuta.TimedOut:
                print(f"nothing new, writer {tailer.writer().value}", file=sys.stderr)
                continue
            print(record.sequence, record.payload.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: tail.py LOG")
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
    except (immuta.Error, OSError) as error:
        sys.exit(f"tail.py: {error}")
