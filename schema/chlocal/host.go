package chlocal

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A child of Start runs Host twice: with confineVar, whose value is a confinement, it restricts itself and
// becomes the program of that; with hostVar, whose value is the library's path, it is the engine.
const (
	confineVar = "TENANTWATCH_ENGINE_CONFINE"
	hostVar    = "TENANTWATCH_ENGINE_HOST"
)

// leashFD is the descriptor, in the host, of a pipe whose other end the parent keeps open while it lives.
const leashFD = 3

// grace is how long a host may take to stop after its parent has died. Clean stops take 0.1 s. The death of a
// parent must not leave an engine behind for more than 2 s.
const grace = time.Second

// Host turns this process into an engine if Start started it for that, and then does not return. Call it first
// in main, and in TestMain of tests that use Start.
func Host() {
	if value := os.Getenv(confineVar); value != "" {
		var c confinement
		err := json.Unmarshal([]byte(value), &c)
		if err == nil {
			err = confine(c)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	path := os.Getenv(hostVar)
	if path == "" {
		return
	}

	// The library starts threads and installs signal handlers: it gets the main thread, as in a program.
	runtime.LockOSThread()

	// The read returns when the parent dies. The library sees the end of its input then, and may stop cleanly
	// within the grace.
	go func() {
		leash := os.NewFile(leashFD, "leash")
		_, _ = leash.Read(make([]byte, 1))
		time.Sleep(grace)
		os.Exit(1)
	}()

	if err := runLibrary(path, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runLibrary runs clickhouse-local with args until its queries have ended.
func runLibrary(path string, args []string) error {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	const symbol = "chdb_query_cmdline"
	if _, err := purego.Dlsym(lib, symbol); err != nil {
		return fmt.Errorf("%s is not a libchdb: %w", path, err)
	}
	var cmdline func(argc int32, argv unsafe.Pointer) uintptr
	purego.RegisterLibFunc(&cmdline, lib, symbol)

	// Build argv as C expects it: strings that end with 0, and a nil after the last one.
	argv := make([]*byte, 0, len(args)+2)
	for _, arg := range append([]string{"clickhouse"}, args...) {
		argv = append(argv, &append([]byte(arg), 0)[0])
	}
	argv = append(argv, nil)

	cmdline(int32(len(argv)-1), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	return nil
}
