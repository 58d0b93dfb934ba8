package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// children are the processes that p has started.
func (p *process) children() []int {
	p.t.Helper()
	// Each thread has a list of its own.
	files, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "task", "*", "children"))
	if err != nil || len(files) == 0 {
		p.t.Skip("no lists of children here")
	}
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		all = append(all, data...)
	}
	var list []int
	for _, field := range strings.Fields(string(all)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			p.t.Fatal(err)
		}
		list = append(list, n)
	}
	return list
}

// TestDemo runs the demo until it has shown all it promises, interrupts it, and
// lets it go on.
func TestDemo(t *testing.T) {
	t.Parallel()
	environ := settings(t)
	p := start(t, environ, "demo", "--events", "5000")
	m, line := p.waitFor(`^Kafka: +(\S+),`, 0)
	_, _ = p.waitFor("^backfill done: 5,[0-9]{3} events", 0)
	_, _ = p.waitFor(`^live: [0-9]+ events/s`, line)
	for _, family := range []string{"rate limit", "authentication", "management api", "probe"} {
		p.waitFor(` ALERT .*\[`+family+`\]`, line)
	}
	p.waitFor(` RESOLVED .*\[probe\]`, line)
	_, line = p.waitFor("^seen an alert of each kind", line)
	m2, _ := p.waitFor(`tenantwatch sql "(SELECT.*)"$`, line)
	if rows := ask(t, environ, m2[1]); len(rows) < 4 {
		t.Errorf("the query that lists the alerts lists %d", len(rows))
	}
	access, err := chlocal.ReadAccess(filepath.Join(value(environ, "TENANTWATCH_DATA_DIR"), engines.ClickHouseDir))
	if err != nil {
		t.Fatal(err)
	}
	children := p.children()
	if len(children) == 0 {
		t.Error("the engine is no child")
	}
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	for _, pid := range children {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	for _, addr := range []string{m[1], access.TCP, access.HTTP} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s is still open", addr)
		}
	}

	before := ask(t, environ, "SELECT count() FROM events")[0] // starts the engine itself
	p = start(t, environ, "demo")
	p.waitFor("^demo: run 2 of the tenant", 0)
	p.waitFor("pull resumed", 0)
	_, _ = p.waitFor(`^live: [1-9][0-9]* events/s`, 0)
	if strings.Contains(p.output(), "backfill done") {
		t.Error("it began anew")
	}
	eventually(t, environ, "SELECT count() > "+before+" AND count() = uniqExact(log_id) FROM events", "1")
	if code := p.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}

	// A real tenant's run keeps away from the demo's data, and the other way round.
	if code := start(t, append(environ, "AUTH0_DOMAIN=acme.eu.auth0.com", "AUTH0_CLIENT_ID=a", "AUTH0_CLIENT_SECRET=b"), "run").wait(); code != exitUsage {
		t.Errorf("run over the demo's data: exit %d", code)
	}
	tenant := settings(t)
	if err := os.MkdirAll(filepath.Join(value(tenant, "TENANTWATCH_DATA_DIR"), engines.KafkaDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if code := start(t, tenant, "demo").wait(); code != exitUsage {
		t.Errorf("demo over real data: exit %d", code)
	}
}

// TestSimAlone runs the simulated tenant and uses what it prints.
func TestSimAlone(t *testing.T) {
	t.Parallel()
	s := start(t, settings(t), "sim", "--events", "1234", "--no-attacks", "--rate", "0")
	var printed []string
	line := 0
	for range 8 {
		var m []string
		m, line = s.waitFor(`^export (.*)$`, line)
		printed = append(printed, m[1])
	}
	environ := settings(t, printed...)
	p := start(t, environ, "run")
	eventually(t, environ, "SELECT count() >= 1234 FROM events WHERE source = 'backfill'", "1")
	p.interrupt()
	if code := s.interrupt(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}
