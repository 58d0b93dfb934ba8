package write_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// start is when the tests begin, in their own time.
var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// idAt is a log_id of an event that was stored at t, the n-th of its moment.
func idAt(t time.Time, n int) string {
	t = t.UTC()
	return fmt.Sprintf("900%s%06d%014d%019d", t.Format("20060102150405"), t.Nanosecond()/1000, 0, n)
}

// logEvent is an event of a tenant.
type logEvent struct {
	id      string
	raw     string
	visible time.Time
}

// storedAt is an event that is stored and visible at t.
func storedAt(t time.Time, n int) logEvent { return visibleAt(t, n, t) }

// visibleAt is an event that is stored at t but shows up later.
func visibleAt(t time.Time, n int, visible time.Time) logEvent {
	id := idAt(t, n)
	date := t.Add(-300 * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")
	return logEvent{id, `{"log_id":"` + id + `","date":"` + date + `","type":"s", "n":1.0}`, visible}
}

// fakeTopic is a topic in memory. It keeps to Producer's contract.
type fakeTopic struct {
	// before is asked before records are kept; an error ends the call. It may be nil.
	before func(ctx context.Context, records []schema.Record) error
	// after is asked once they are kept; an error ends the call all the same.
	after func(ctx context.Context, records []schema.Record) error

	mu      sync.Mutex // guards what follows
	down    bool       // attempts fail and are repeated
	records []schema.Record
}

var errDown = errors.New("no broker answers")

func (f *fakeTopic) Produce(ctx context.Context, records []schema.Record, failed func(error)) error {
	for {
		f.mu.Lock()
		down := f.down
		f.mu.Unlock()
		if !down {
			break
		}
		failed(errDown)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), errDown)
		case <-time.After(time.Second):
		}
	}
	if f.before != nil {
		if err := f.before(ctx, records); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.records = append(f.records, records...)
	f.mu.Unlock()
	if f.after != nil {
		return f.after(ctx, records)
	}
	return nil
}

func (f *fakeTopic) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *fakeTopic) all() []schema.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.records)
}

// written counts records by their value; our own are left out.
func (f *fakeTopic) written() map[string]int {
	got := map[string]int{}
	for _, r := range f.all() {
		if r.Header("source") != string(schema.SourceSelf) {
			got[string(r.Value)]++
		}
	}
	return got
}

// logBook keeps what is logged.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *logBook) WithGroup(string) slog.Handler            { return b }
func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// count is how many lines have a text.
func (b *logBook) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, l := range b.lines {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.lines, "\n")
}

// every is n events from a time on, gap apart.
func every(from time.Time, gap time.Duration, n int) []logEvent {
	var events []logEvent
	for i := range n {
		events = append(events, storedAt(from.Add(time.Duration(i)*gap), i+1))
	}
	return events
}
