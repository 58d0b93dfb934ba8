// Command tenantwatch keeps an Auth0 tenant's logs for good and watches them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitFound  = 3 // what was looked for: an audit found something missing
)

// memoryLimit is what the Go runtime is asked to stay below, so that a backlog
// is worked off rather than held. Kafka and ClickHouse hold it.
const memoryLimit = 88 << 20

// cli is the commands and their flags. Settings are in the environment.
type cli struct {
	Run         runCmd         `cmd:"" help:"Pull, keep, scan and probe the tenant of AUTH0_DOMAIN until interrupted."`
	Demo        demoCmd        `cmd:"" help:"Do the same against a simulated tenant: history, live traffic, attacks and an outage."`
	Backfill    backfillCmd    `cmd:"" help:"Pull a stretch of the past again; beside a running instance, or alone."`
	Audit       auditCmd       `cmd:"" help:"Prove that nothing is missing: hold what is kept against the tenant, hour by hour."`
	DeadLetter  deadletterCmd  `cmd:"" name:"deadletter" help:"What could not be stored."`
	SQL         sqlCmd         `cmd:"" name:"sql" help:"Run one read-only query over what is kept."`
	Investigate investigateCmd `cmd:"" help:"Ask one of the saved queries, such as what a user or an address did."`
	Rules       rulesCmd       `cmd:"" help:"The detection rules: list them, run them over files."`
	Sim         simCmd         `cmd:"" help:"Run the simulated tenant alone."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// app is what commands need of the process.
type app struct {
	stdout, stderr io.Writer
	environ        []string
}

// logOutput is where the log goes: to stderr, but above the progress bar where
// people see both.
func (a *app) logOutput(out *console) io.Writer {
	if out.terminal && newConsole(a.stderr).terminal {
		return out
	}
	return a.stderr
}

func main() {
	chlocal.Host()       // does not return in the process that hosts the engine
	syscall.Umask(0o077) // what we write is for us alone, whatever the shell says
	debug.SetMemoryLimit(memoryLimit)
	// The second signal ends us at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := execute(ctx, os.Args[1:], &app{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()})
	stop()
	os.Exit(code)
}

// execute runs one command and returns the exit code.
func execute(ctx context.Context, args []string, a *app) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("tenantwatch"),
		kong.Description("Keeps an Auth0 tenant's logs for good and watches them. Settings are read from the environment; the README lists them."),
		kong.Writers(a.stdout, a.stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a))
	if err != nil {
		fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
		var wrong *kong.ParseError
		if errors.As(err, &wrong) {
			fmt.Fprintln(a.stderr, "run tenantwatch --help for the commands and their flags")
		}
		return exitUsage
	}
	err = command.Run()
	var wrong faults
	var usage usageError
	var found foundError
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitOK
	case errors.As(err, &wrong), errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
		return exitUsage
	case errors.As(err, &found):
		fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
		return exitFound
	}
	fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
	return exitFailed
}

// foundError is for what a command was to look for.
type foundError string

func (e foundError) Error() string { return string(e) }

// usageError is for arguments that make no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

// newLogger logs in the way the settings ask for.
func newLogger(w io.Writer, c *Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintf(a.stdout, "tenantwatch %s (ClickHouse engine %s)\n", version(), chlocal.Version)
	return err
}

// version is the module's, or the commit's for a build from source.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
}
