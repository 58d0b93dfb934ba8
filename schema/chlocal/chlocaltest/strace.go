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

// Strace attaches strace to an engine with more arguments and returns when it has.
// The function ends it and returns what it wrote. Without strace the test is skipped,
// with what is then not shown.
func Strace(tb testing.TB, srv *chlocal.Server, unproven string, args ...string) (end func() string) {
	tb.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		tb.Skipf("strace is not installed: not shown is that %s", unproven)
	}
	out := filepath.Join(tb.TempDir(), "strace")
	cmd := exec.Command(strace, append([]string{"-f", "-ttt", "-y", "-o", out, "-p", fmt.Sprint(srv.PID())}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}

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
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines.Scan() { // new threads
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

// CrashInserts has the engine killed at the very moment when it renames the part of an
// insert into place, as often as rounds says. It attempts each insert until it is
// acknowledged. The engine must not merge meanwhile, or it would die of a merge.
func CrashInserts(tb testing.TB, srv *chlocal.Server, rounds int, insert func(round int) error) {
	tb.Helper()
	const renames = "rename,renameat,renameat2"
	for round := range rounds {
		end := Strace(tb, srv, "nothing is lost when the engine is killed while it renames a part",
			"-e", "trace="+renames, "-e", "inject="+renames+":signal=SIGKILL")
		died, pid := srv.Done(), srv.PID()
		err := insert(round)
		select {
		case <-died:
		case <-tb.Context().Done():
			tb.Fatalf("round %d: the engine lives on; the insert: %v", round, err)
		}
		end()
		for err != nil || srv.PID() == pid {
			if tb.Context().Err() != nil {
				tb.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // until the engine is back
			if err != nil {
				err = insert(round)
			}
		}
	}
}
