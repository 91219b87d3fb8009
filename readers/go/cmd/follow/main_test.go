package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The program under test is this one, run again.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_FOLLOW") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write writes a log of these payloads, and behind them, if damaged, a record whose size lies.
func write(t *testing.T, path string, damaged bool, payloads ...string) {
	t.Helper()
	count := len(payloads)
	var log []byte
	for _, payload := range payloads {
		log = append(binary.LittleEndian.AppendUint64(log, uint64(len(payload))), payload...)
	}
	if damaged {
		log = binary.LittleEndian.AppendUint64(log, 1000)
		count++
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		defer file.Close()
		_, err = file.WriteAt(log, 8)
	}
	if err == nil {
		_, err = file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(count)), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func program(t *testing.T, shell string, args ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], args...)
	if shell != "" {
		command = exec.Command("sh", append([]string{"-c", shell, os.Args[0]}, args...)...)
	}
	command.Env = append(os.Environ(), "RUN_FOLLOW=1", "IMMUTA_CONTROL_DIR="+t.TempDir())
	timer := time.AfterFunc(time.Minute, func() {
		if command.Process != nil {
			command.Process.Kill()
		}
	})
	t.Cleanup(func() { timer.Stop() })
	return command
}

const (
	lineA = "0 1 e8b7be43\n"
	line9 = "2 9 cbf43926\n" // of "123456789", by which the algorithm is known
)

func TestPrintsAndEnds(t *testing.T) {
	dir := t.TempDir()
	log, bad, none := filepath.Join(dir, "log"), filepath.Join(dir, "bad"), filepath.Join(dir, "none")
	write(t, log, false, "a", "", "123456789")
	write(t, bad, true, "a")
	all := lineA + "1 0 00000000\n" + line9
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{log + " --count 3", 0, all, ""},
		{"--skip 2 " + log + " --timeout 0.25", 6, line9, log + ": no record within 250ms"},
		{log + " --timeout 0", 6, all, log + ": no record within 0s"},
		{log + " --count 0", 0, "", ""},
		{none + " --count 0", 0, "", ""},
		{log + " --skip 9 --count 1 --timeout 0.05", 6, "", log + ": no record within 50ms"},
		{none, 3, "", none},
		{none + " --timeout 0.05", 3, "", none},
		{dir, 1, "", dir},
		{bad, 5, lineA, bad + ": damaged at position 17, record 1"},
		{"", 2, "", "usage: follow LOG"},
		{log + " " + log, 2, "", "usage: follow LOG"},
		{log + " --skip", 2, "", "usage: follow LOG"},
		{log + " --skip -1", 2, "", "usage: follow LOG"},
		{log + " --count 1x", 2, "", "usage: follow LOG"},
		{log + " --count 99999999999999999999", 2, "", "usage: follow LOG"},
		{log + " --timeout 1s", 2, "", "usage: follow LOG"},
		{log + " --timeout -1", 2, "", "usage: follow LOG"},
		{log + " --timeout .", 2, "", "usage: follow LOG"},
		{log + " --nothing", 2, "", "usage: follow LOG"},
	} {
		command := program(t, "", strings.Fields(c.args)...)
		var stdout, stderr strings.Builder
		command.Stdout, command.Stderr = &stdout, &stderr
		command.Run()
		if code := command.ProcessState.ExitCode(); code != c.code || stdout.String() != c.stdout || !strings.Contains(stderr.String(), c.stderr) || (c.stderr == "" && stderr.Len() > 0) {
			t.Errorf("follow %s: %d %q %q", c.args, code, &stdout, &stderr)
		}
	}
	command := program(t, `{ "$0" "$1"; echo "ends with $?" >&2; } | head -n 1`, log) // a reader that leaves ends it, though it waits for a record
	out, err := command.CombinedOutput()
	if err != nil || string(out) != lineA+"ends with 0\n" {
		t.Errorf("follow | head: %v %q", err, out)
	}
}

// A reader that leaves before it has read anything: the program finds it out as it writes.
func TestEndsWhereNobodyReads(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, false, "a")
	reads, writes, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reads.Close()
	defer writes.Close()
	command := program(t, "", log)
	var stderr strings.Builder
	command.Stdout, command.Stderr = writes, &stderr
	if err := command.Run(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v %q", err, &stderr)
	}
}

// By the shell's wrapper: the runtime has opened /dev/null before a Go program can see that.
func TestFailsWithoutAnOutput(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, false, "a")
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute) // it may have to be built
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "-c", `../../follow "$0" --count 1 >&-`, log)
	var stderr strings.Builder
	command.Stderr = &stderr
	command.Run()
	if code := command.ProcessState.ExitCode(); code != 1 || !strings.Contains(stderr.String(), "follow: write") {
		t.Errorf("%d %q", code, &stderr)
	}
}

func TestFollowsAndIsEnded(t *testing.T) {
	for _, how := range []int{int(syscall.SIGINT), int(syscall.SIGTERM), 0} {
		log := filepath.Join(t.TempDir(), "log")
		command := program(t, "", log, "--timeout", "20")
		if how != 0 {
			write(t, log, false, "a")
			command = program(t, "", log)
		}
		stdout, err := command.StdoutPipe()
		if err == nil {
			err = command.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if how == 0 {
			write(t, log, false, "a") // it waits for the log
		}
		lines := bufio.NewReader(stdout)
		if line, _ := lines.ReadString('\n'); line != lineA { // flushed before it waits
			t.Fatalf("%q", line)
		}
		write(t, log, false, "a", "", "123456789")
		lines.ReadString('\n')
		if line, _ := lines.ReadString('\n'); line != line9 {
			t.Fatalf("%q", line)
		}
		code := 128 + how
		if how == 0 {
			os.Remove(log)
			code = 3
		} else {
			command.Process.Signal(syscall.Signal(how))
		}
		command.Wait()
		if got := command.ProcessState.ExitCode(); got != code {
			t.Errorf("ends with %d, not %d", got, code)
		}
	}
}
