package kafkatest_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka/kafkatest"
)

// childVar makes the test binary the one that is killed.
const childVar = "KAFKATEST_CHILD"

// TestEndsWithTheProcess kills a test process with -9: its broker ends too.
func TestEndsWithTheProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about processes: nothing for the race detector")
	}
	if os.Getenv(childVar) == "1" {
		c := kafkatest.Start(t, kafkatest.Config{Brokers: 1})
		os.Stdout.WriteString("\npid " + strconv.Itoa(c.PID(0)) + "\n")
		select {}
	}
	kafkatest.Find(t)
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestEndsWithTheProcess$")
	cmd.Env = append(os.Environ(), childVar+"=1", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, _ = strconv.Atoi(text)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if pid == 0 {
		t.Fatal("the process started no broker")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ended(pid); <-tick.C {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the broker lives on")
		}
	}
}

// ended reports whether a process is gone, or waits for a parent that does not ask.
func ended(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestStopAndRestart shows that a broker is where it was after an orderly end
// and after a kill.
func TestStopAndRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it is about processes: nothing for the race detector")
	}
	c := kafkatest.Start(t, kafkatest.Config{Brokers: 1})
	addr := c.Addrs()[0]
	for range 2 {
		c.Stop(0)
		c.Restart(0)
		c.Kill(0)
		c.Restart(0)
	}
	if got := c.Addrs(); len(got) != 1 || got[0] != addr {
		t.Errorf("it is at %v, was at %s", got, addr)
	}
}
