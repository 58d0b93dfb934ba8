package main

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/golden"
	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/ingest/deadletter"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
)

// engineVar makes tests fail without the real engine, instead of leaving out what needs it.
const engineVar = "TENANTWATCH_TEST_ENGINE"

// TestScripts runs the contract of each subcommand: a good call, a bad one, the exit code
// and the output in each format.
//
// Beside the commands of testscript, a script has
//
//	exits CODE tenantwatch ARGS…   the command ends with this exit code
//	instance                       the settings of an instance that runs, with 300 events
//	                               of the tenant demo and one dead letter
//	[engine]                       holds when there is an engine, and so an instance
func TestScripts(t *testing.T) {
	t.Parallel()
	repository, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var instance []string
	if os.Getenv(engineVar) == "1" {
		instance = startInstance(t)
	}

	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       golden.Update(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// What has no settings must not find the data of whoever runs the tests.
			env.Setenv("TENANTWATCH_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			env.Setenv("REPOSITORY", repository)
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "engine" {
				return false, errors.New("the only condition of ours is engine")
			}
			return instance != nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"instance": func(ts *testscript.TestScript, _ bool, _ []string) { setAll(ts, instance) },
		},
	})
}

// exits runs a command that must end with an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command arg...")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	code := 0
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(code) != want {
		ts.Fatalf("exit %d, want %s", code, want)
	}
}

func setAll(ts *testscript.TestScript, environ []string) {
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); name != "PATH" && name != "HOME" && name != "TMPDIR" {
			ts.Setenv(name, value)
		}
	}
}

// startInstance runs an instance for all scripts, and returns its settings.
func startInstance(t *testing.T) []string {
	s := serve(t, auth0sim.Config{Name: "demo", Seed: 1, HistoryEvents: 300, HistorySpan: 5 * time.Hour})
	environ := settings(t, unprobed(s)...)
	p := spawn(t, environ, "run")
	t.Cleanup(p.kill)
	defer func() { // a script that fails later has its own log
		if t.Failed() {
			t.Logf("output of the instance:\n%s", p.output())
		}
	}()
	match, _ := p.waitFor(`^Kafka: +(\S+),`, 0)
	p.waitFor("backfill finished", 0)
	s.tenant.Inject(func(string, time.Time) []byte { return []byte(`{"type":"\u001b[31m"}`) })
	p.waitFor("moving it to the deadletter topic", 0)
	eventually(t, environ, "SELECT count() >= 300 FROM events", "1")

	// It is in the topic, so that scripts need not wait.
	quiet := slog.New(slog.DiscardHandler)
	client := kafka.NewClient(kafka.Config{Brokers: match[1:], Log: quiet})
	defer client.Close()
	waitUntil(t, "the dead letter is listed", func() bool {
		list, err := deadletter.New(client, topicsOf(environ), quiet).Read(t.Context())
		return err == nil && len(list) == 1
	})
	return environ
}

// suite is the tests with what they share.
type suite struct{ *testing.M }

// Run runs the tests and ends what they share.
func (s suite) Run() int {
	code := s.M.Run()
	if apache.cluster != nil {
		apache.cluster.Close()
	}
	return code
}
