package datadir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	lock, err := datadir.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := datadir.Lock(dir); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("second lock: got %v, want ErrInUse", err)
	}

	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := datadir.Lock(dir)
	if err != nil {
		t.Fatalf("after the first lock was released: %v", err)
	}
	again.Close()

	if _, err := datadir.Lock(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("folder that does not exist: got %v", err)
	}
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, want := range []string{"first", "second, longer", "3"} {
		if err := datadir.Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}

	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A crash may have left the temporary file of an earlier write.
	if err := os.WriteFile(path+".tmp", []byte("a part that is longer than the next content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := datadir.Replace(path, []byte("4")); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "4" {
		t.Errorf("got %q", got)
	}
}
