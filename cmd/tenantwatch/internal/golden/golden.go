// Package golden compares what tests print with files, and writes these again with the flag -update. Only tests
// import it.
package golden

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden texts and generated documents again")

// Update reports whether the flag -update is set.
func Update() bool { return *update }

// Compare fails a test whose text differs from a file. With -update it writes the file instead.
func Compare(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}

	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s differs: run the test with -update, and read the difference\n-file +test\n%s", file, diff)
	}
}
