package chlocal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Version is the ClickHouse that `make engine` fetches and that this package is tested with. Later ones work
// too.
const Version = "26.7.3-stable.1"

// EngineVar is the environment variable that names an engine: a clickhouse binary or a libchdb.so.
const EngineVar = "TENANTWATCH_CLICKHOUSE"

// library is the file name of ClickHouse as a shared library.
const library = "libchdb.so"

// librarySums are the SHA-256 sums of the libraries that `make engine` fetches, by architecture.
var librarySums = map[string]string{"amd64": "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5"}

// Engine is the ClickHouse to run.
type Engine struct {
	Path string // absolute

	sum string // SHA-256 that the file must have; empty if unknown
}

// isLibrary reports whether the engine is the shared library, which runs in a child that hosts it, rather than
// a program.
func (e Engine) isLibrary() bool { return strings.HasSuffix(e.Path, ".so") }

// NoEngineError reports that no ClickHouse was found, and the places that were searched.
type NoEngineError struct {
	Looked []string
}

func (e *NoEngineError) Error() string {
	return "no ClickHouse engine found; searched:\n  " + strings.Join(e.Looked, "\n  ") +
		"\nget one in any of three ways:\n" +
		"  1. run `make engine` in the source folder: fetches " + library + " " + Version + " into .cache\n" +
		"  2. install ClickHouse, so that `clickhouse` is on PATH\n" +
		"  3. set " + EngineVar + " to a clickhouse binary or a " + library + "\n" +
		"or use a ClickHouse server: set CLICKHOUSE_DSN"
}

// FindEngine finds ClickHouse: named (the value of EngineVar, which must exist when set), else a clickhouse on
// PATH, else the library that `make engine` cached. Its error is a *NoEngineError when there is none.
func FindEngine(named string) (Engine, error) {
	if named != "" {
		// A wrong setting is an error; the others are not tried.
		path, err := filepath.Abs(named)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return Engine{}, fmt.Errorf("%s=%q: %w: set it to a clickhouse binary or a %s, or unset it",
				EngineVar, named, err, library)
		}
		return Engine{Path: path}, nil
	}
	searched := []string{EngineVar + " (not set)"}

	if path, err := exec.LookPath("clickhouse"); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			return Engine{Path: path}, nil
		}
	}
	searched = append(searched, "clickhouse on PATH")

	// Only a library that we have fetched has a known sum.
	for _, dir := range cacheDirs() {
		path := filepath.Join(dir, "clickhouse-"+Version+"-"+runtime.GOARCH, library)
		if _, err := os.Stat(path); err == nil {
			return Engine{Path: path, sum: librarySums[runtime.GOARCH]}, nil
		}
		searched = append(searched, path)
	}
	return Engine{}, &NoEngineError{Looked: searched}
}

// cacheDirs returns the folders that may hold what `make engine` fetched: .cache of the source folder, as seen
// from the working directory and from a binary in its bin folder, and the user's cache.
func cacheDirs() []string {
	var dirs []string
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, filepath.Join(wd, ".cache"))
	}
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(filepath.Dir(exe)), ".cache"))
	}
	if user, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(user, "tenantwatch"))
	}
	return dirs
}

// DamagedEngineError reports that the library is not the one that was fetched.
type DamagedEngineError struct {
	Path      string
	Got, Want string // SHA-256
}

func (e *DamagedEngineError) Error() string {
	return fmt.Sprintf("the ClickHouse engine %s is damaged: its SHA-256 is %s, not %s: "+
		"remove the folder %s and run `make engine`", e.Path, e.Got, e.Want, filepath.Dir(e.Path))
}

// check compares the library with the one that was fetched. It has 500 MB, which take a second, so each file is
// checked once: a note beside it holds the size and the time of a file that was intact. Losing the note only
// costs another check.
func (e Engine) check() error {
	if e.sum == "" {
		return nil
	}
	info, err := os.Stat(e.Path)
	if err != nil {
		return err
	}

	seen := fmt.Sprintf("%s %d %d\n", e.sum, info.Size(), info.ModTime().UnixNano())
	note := e.Path + ".checked"
	if known, err := os.ReadFile(note); err == nil && string(known) == seen {
		return nil
	}

	file, err := os.Open(e.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read the ClickHouse engine %s: %w", e.Path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != e.sum {
		return &DamagedEngineError{Path: e.Path, Got: got, Want: e.sum}
	}

	// The folder may be read-only; then the next start checks again.
	_ = os.WriteFile(note, []byte(seen), 0o600)
	return nil
}
