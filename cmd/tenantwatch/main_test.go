package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/demo"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// mainVar makes the test binary the program itself, so that it can be run as a
// process of its own and killed.
const mainVar = "RUN_MAIN"

func TestMain(m *testing.M) {
	chlocal.Host()
	if os.Getenv(mainVar) == "1" {
		main()
	}
	testscript.Main(suite{m}, map[string]func(){"tenantwatch": main})
}

// patience bounds every wait; only a failing test uses it up.
const patience = 4 * time.Minute

// process is a running tenantwatch.
type process struct {
	t   testing.TB
	cmd *exec.Cmd

	mu    sync.Mutex // guards lines and times
	lines []string
	times []time.Time // when each line came
	more  *sync.Cond

	ended chan struct{}
	err   error
}

// start runs a command as a process that ends with the test at the latest. What
// it said is shown when the test fails.
func start(t testing.TB, environ []string, args ...string) *process {
	t.Helper()
	p := spawn(t, environ, args...)
	t.Cleanup(func() {
		if t.Failed() { // show where it stands
			p.dump()
		}
		p.kill()
		if t.Failed() {
			t.Logf("output of %v:\n%s", args, p.output())
		}
	})
	return p
}

// spawn is start without the end.
func spawn(t testing.TB, environ []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	p.cmd.Env = append(slices.Clone(environ), mainVar+"=1")
	p.cmd.Dir = t.TempDir()
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	// The engine inherits stdout; a kill of its parent must not make us wait for it.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(r)
	go func() {
		p.err = p.cmd.Wait()
		w.Close()
		close(p.ended)
		p.more.Broadcast()
	}()
	return p
}

// dump has it tell where its goroutines stand, and end.
func (p *process) dump() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
}

func (p *process) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.lines, p.times = append(p.lines, s.Text()), append(p.times, time.Now())
		p.mu.Unlock()
		p.more.Broadcast()
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// waitFor waits for a line from the given one on and returns its submatches, and
// the number of the next line.
func (p *process) waitFor(pattern string, from int) (match []string, next int) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.AfterFunc(patience, p.more.Broadcast)
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for ; from < len(p.lines); from++ {
			if m := re.FindStringSubmatch(p.lines[from]); m != nil {
				return m, from + 1
			}
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the process ended (%v) before it said %q", p.err, pattern)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("it has not said %q", pattern)
		}
		p.more.Wait()
	}
}

// kill ends it as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// interrupt is Ctrl-C. It returns the exit code.
func (p *process) interrupt() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	return p.wait()
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("the process does not end")
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// settings is an environment with a data folder of its own, the real engine, and
// the given settings over these.
func settings(t testing.TB, more ...string) []string {
	t.Helper()
	environ := []string{"HTTP_ADDR=127.0.0.1:0", "TENANTWATCH_DATA_DIR=" + filepath.Join(t.TempDir(), "data"),
		"TENANTWATCH_CLICKHOUSE=" + chlocaltest.Engine(t).Path, "TENANTWATCH_RATE_SHARE=1", "TENANTWATCH_POLL=200ms"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			environ = append(environ, name+"="+v)
		}
	}
	return append(environ, more...)
}

// value is a variable of an environment.
func value(environ []string, name string) string {
	for _, line := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return v
		}
	}
	return ""
}

// sim is a simulated tenant for the test.
type sim struct {
	tenant *auth0sim.Tenant
	url    *url.URL
	server *auth0sim.Server
}

// environ returns the settings that reach the tenant.
func (s *sim) environ() []string { return demo.Environ(s.server) }

// serve runs a simulated tenant for the test.
func serve(t testing.TB, cfg auth0sim.Config) *sim {
	t.Helper()
	server, err := auth0sim.Listen("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return &sim{tenant: server.Tenant, url: server.URL, server: server}
}

// startEngine starts an embedded ClickHouse in a folder of its own, supervised as in the program.
func startEngine(t testing.TB, log io.Writer) *chlocal.Server {
	t.Helper()
	cfg := &config.Config{DataDir: t.TempDir(), Engine: chlocaltest.Engine(t).Path}
	server, err := engines.StartClickHouse(t.Context(), cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// ask runs the sql command and returns the lines of its CSV, without the header.
func ask(t testing.TB, environ []string, query string) []string {
	t.Helper()
	out, err := tryAsk(t.Context(), environ, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func tryAsk(ctx context.Context, environ []string, query string) ([]string, error) {
	var stdout, stderr bytes.Buffer
	if code := execute(ctx, []string{"sql", "--output", "csv", query}, &app{stdout: &stdout, stderr: &stderr, environ: environ}); code != exitOK {
		return nil, fmt.Errorf("exit %d: %s", code, stderr.String())
	}
	return strings.Split(strings.TrimSpace(stdout.String()), "\n")[1:], nil
}

// eventually asks until the answer is the wanted one. It is for what another
// process does in its own time.
func eventually(t testing.TB, environ []string, query, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := tryAsk(t.Context(), environ, query)
		if err == nil && strings.Join(got, "\n") == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %v, %v; want %s", query, got, err, want)
		}
		<-tick.C
	}
}

// gone reports whether nobody has a process any more.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
