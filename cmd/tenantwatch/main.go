// Command tenantwatch keeps an Auth0 tenant's logs for good and watches them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/version"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong arguments or settings
	exitFound  = 3 // the command found what it looks for, such as missing events
)

// memoryLimit is the soft limit of the Go heap. Under a backlog the collector works harder instead of the
// heap growing: Kafka and ClickHouse hold the backlog.
const memoryLimit = 88 << 20

// description heads the help.
const description = "Keeps an Auth0 tenant's logs for good and watches them. " +
	"Settings are read from the environment; the README lists them."

// cli is the commands and their flags. Settings come from the environment.
type cli struct {
	Run         runCmd         `cmd:"" help:"Pull, store, scan and probe the configured tenants until interrupted."`
	Demo        demoCmd        `cmd:"" help:"Run against a simulated tenant with attacks and an outage."`
	Backfill    backfillCmd    `cmd:"" help:"Pull a time range again, through a running instance or without one."`
	Audit       auditCmd       `cmd:"" help:"Compare the stored events with the tenant's log, hour by hour."`
	DeadLetter  deadletterCmd  `cmd:"" name:"deadletter" help:"List or retry events that could not be stored."`
	SQL         sqlCmd         `cmd:"" name:"sql" help:"Run one read-only query over the stored data."`
	Investigate investigateCmd `cmd:"" help:"Run a saved query, such as everything that a user or an address did."`
	Rules       rulesCmd       `cmd:"" help:"List, check, test, explain and run the detection rules."`
	Sim         simCmd         `cmd:"" help:"Serve the simulated tenant alone."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// app is the process as commands see it.
type app struct {
	stdout, stderr io.Writer
	environ        []string
}

// settings returns the settings that a command may have, none of which it requires.
func (a *app) settings() (*config.Config, error) { return config.Load(a.environ, config.Need{}) }

// openReader connects to the ClickHouse with the data, for reading only. The caller calls end.
func (a *app) openReader(ctx context.Context) (conn driver.Conn, end func(), err error) {
	c, err := a.settings()
	if err != nil {
		return nil, nil, err
	}
	return engines.OpenReader(ctx, c)
}

func main() {
	protectProcess()
	chlocal.Host() // does not return in the process that hosts the engine
	debug.SetMemoryLimit(memoryLimit)

	// After the first signal the default action is restored, so a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)

	code := execute(ctx, os.Args[1:], &app{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()})
	stop()
	os.Exit(code)
}

// protectProcess makes new files readable for this user only, and the environment and memory, which hold
// secrets, readable for no process. Without the second, any program of this user could read
// /proc/PID/environ.
func protectProcess() {
	syscall.Umask(0o077)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // cannot fail with these arguments
}

// flagDefaults are the defaults of flags that follow from the program.
func flagDefaults() kong.Vars { return kong.Vars{"roles": strings.Join(defaultRoles(), ",")} }

// execute runs one command and returns the exit code.
func execute(ctx context.Context, args []string, a *app) int {
	var commands cli
	exited := -1
	parser, err := kong.New(&commands,
		kong.Name("tenantwatch"),
		kong.Description(description),
		flagDefaults(),
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

	// The commands print their results; errors are printed here.
	err = command.Run()
	interrupted := errors.Is(err, context.Canceled) && ctx.Err() != nil
	if err == nil || interrupted {
		return exitOK
	}
	fmt.Fprintf(a.stderr, "tenantwatch: %v\n", err)
	return exitCode(err)
}

// exitCode returns the exit code of a failed command.
func exitCode(err error) int {
	var settings config.Faults
	var usage usageError
	var found foundError
	switch {
	case errors.As(err, &settings), errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &found):
		return exitFound
	}
	return exitFailed
}

// foundError reports that a command found what it looks for.
type foundError string

func (e foundError) Error() string { return string(e) }

// usageError reports arguments that are invalid or contradict each other.
type usageError string

func (e usageError) Error() string { return string(e) }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintf(a.stdout, "tenantwatch %s (ClickHouse engine %s)\n", version.String(), chlocal.Version)
	return err
}
