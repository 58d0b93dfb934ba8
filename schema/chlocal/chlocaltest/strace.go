package chlocaltest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// Strace attaches strace to an engine, with additional arguments, and returns when it is attached. The returned
// function detaches it and returns its output. Without strace the test is skipped, and the message says what
// stays unproven.
func Strace(tb testing.TB, srv *chlocal.Server, unproven string, args ...string) (end func() string) {
	tb.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		tb.Skipf("strace is not installed: not shown is that %s", unproven)
	}

	// Follow all threads, with times and paths, into a file.
	out := filepath.Join(tb.TempDir(), "strace")
	args = append([]string{"-f", "-ttt", "-y", "-o", out, "-p", fmt.Sprint(srv.PID())}, args...)
	cmd := exec.Command(strace, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}

	// It reports on stderr that it is attached, or why it cannot be: a container may forbid ptrace.
	var printed strings.Builder
	attached := false
	lines := bufio.NewScanner(stderr)
	for !attached && lines.Scan() {
		printed.WriteString(lines.Text() + "\n")
		attached = strings.Contains(lines.Text(), " attached")
	}
	if !attached {
		_ = cmd.Wait()
		tb.Skipf("strace cannot attach (%s): not shown is that %s", strings.TrimSpace(printed.String()), unproven)
	}

	// Read on, or strace would block when it reports new threads.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines.Scan() {
		}
		_ = cmd.Wait()
	}()

	return func() string {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		text, err := os.ReadFile(out)
		if err != nil {
			tb.Fatal(err)
		}
		return string(text)
	}
}

// CrashInserts kills the engine at the moment when it renames the part of an insert into place, in each of so
// many rounds. It repeats each insert until it is acknowledged. The engine must not merge meanwhile, or it
// would be killed in a merge.
func CrashInserts(tb testing.TB, srv *chlocal.Server, rounds int, insert func(round int) error) {
	tb.Helper()
	const renames = "rename,renameat,renameat2"
	for round := range rounds {
		end := Strace(tb, srv, "nothing is lost when the engine is killed while it renames a part",
			"-e", "trace="+renames, "-e", "inject="+renames+":signal=SIGKILL")

		// The insert may fail, or succeed although the engine dies.
		died, pid := srv.Done(), srv.PID()
		err := insert(round)
		select {
		case <-died:
		case <-tb.Context().Done():
			tb.Fatalf("round %d: the engine lives on; the insert: %v", round, err)
		}
		end()

		// Wait until the engine is back, and repeat the insert if it was not acknowledged.
		for err != nil || srv.PID() == pid {
			if tb.Context().Err() != nil {
				tb.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if err != nil {
				err = insert(round)
			}
		}
	}
}
