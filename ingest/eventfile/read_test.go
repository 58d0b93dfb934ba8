package eventfile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/ingest/eventfile"
	"github.com/tenantwatch/tenantwatch/schema"
)

// TestEach reads files in all the forms that they may have.
func TestEach(t *testing.T) {
	const (
		bare     = `{"type":"s","log_id":"a","date":"2026-01-01T00:00:00Z"}`
		envelope = `{"log_id":"b","data":{"type":"fp","date":"2026-01-01T00:01:00Z"}}`
		nameless = `{"type":"odd","date":"2026-01-01T00:02:00Z"}`
	)
	many := strings.Repeat(bare+"\n", 1000)
	for _, tt := range []struct {
		name, content string
		want          []string // log_id as the event has it, log_id and type
		rejected      []string // place
	}{
		{"lines", bare + "\n\n" + envelope + "\r\n" + nameless, []string{"a a s", "b b fp", " f:4 odd"}, nil},
		{"an array", " [" + bare + " ,\n" + nameless + "]\n", []string{"a a s", " f[2] odd"}, nil},
		{"nothing", "", nil, nil},
		{"white space", " \n\t\n", nil, nil},
		{"an empty array", "[]", nil, nil},
		{"broken lines", "{\"type\":\n" + bare + "\n7", []string{"a a s"}, []string{"f:1", "f:3"}},
		{"a broken array", "[" + bare + ", {", []string{"a a s"}, []string{"f"}},
		{"more after an array", "[" + bare + "]\n[{}]", []string{"a a s"}, []string{"f"}},
		{"no date", `{"type":"odd"}`, nil, []string{"f:1"}},
		{"more than a batch", many, strings.Split(strings.TrimSuffix(strings.Repeat("a a s\n", 1000), "\n"), "\n"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got, rejected []string
			err := eventfile.Each(t.Context(), "f", strings.NewReader(tt.content), func(ev *schema.Event, logID string) error {
				got = append(got, fmt.Sprintf("%s %s %s", logID, ev.LogID, ev.Type))
				if !ev.FetchedAt.Equal(ev.Date) {
					t.Errorf("fetched at %s, of %s", ev.FetchedAt, ev.Date)
				}
				return nil
			}, func(place string, err error) {
				rejected = append(rejected, place)
				if err == nil {
					t.Errorf("%s: no reason", place)
				}
			})
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.rejected, rejected); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
	}

	// An error of yield ends the reading, and so does the context.
	stop, calls := errors.New("stop"), 0
	err := eventfile.Each(t.Context(), "f", strings.NewReader(many), func(*schema.Event, string) error { calls++; return stop }, nil)
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d events", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eventfile.Each(ctx, "f", strings.NewReader(many), func(*schema.Event, string) error { return nil }, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestFiles reads files twice, among them the standard input, and leaves nothing behind.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "a.ndjson")
	if err := os.WriteFile(name, []byte(`{"log_id":"a","date":"2026-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin := `{"log_id":"b","date":"2026-01-01T00:00:00Z"}`
	files, err := eventfile.Open([]string{name, "-"}, strings.NewReader(stdin))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var ids []string
		if err := files.Each(t.Context(), func(ev *schema.Event) { ids = append(ids, ev.LogID) }, nil); err != nil || strings.Join(ids, " ") != "a b" {
			t.Errorf("%v, %v", ids, err)
		}
	}
	files.Close()

	var wrong eventfile.NameError
	if _, err := eventfile.Open([]string{"-", name + "x"}, strings.NewReader(stdin)); !errors.As(err, &wrong) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
