package pull

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/schema"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// logID is a log_id of an event that was stored at t, the n-th of its moment.
func logID(t time.Time, n int) string {
	return fmt.Sprintf("900%s%06d%014d%019d", t.UTC().Format("20060102150405"), t.Nanosecond()/1000, 0, n)
}

// TestRecent holds recent against a plain set: an id is new once. One of the past
// that came too late for the window is not kept, and since tells so.
func TestRecent(t *testing.T) {
	const window = 10 * time.Minute
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 7))
		r, known, now := newRecent(window), map[string]bool{}, noon
		var since time.Time
		for range 3000 {
			now = now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
			at := now.Add(-time.Duration(rng.IntN(900)) * time.Second).Truncate(time.Second)
			id := logID(at, rng.IntN(3))
			if rng.IntN(10) == 0 {
				id = fmt.Sprintf("of another kind %d", rng.IntN(50)) // never too old
			}
			if rng.IntN(3) == 0 {
				r.addPast(id, now)
				if stored, ok := schema.IDTime(id); !ok || now.Sub(stored) <= window {
					known[id] = true
				} else if stored.After(since) {
					since = stored
				}
			} else if got := r.add(id); got == known[id] {
				t.Fatalf("seed %d: %s is new at %s: %v", seed, id, now, got)
			} else {
				known[id] = true
			}
			if got := r.since(); !got.Equal(since) {
				t.Fatalf("seed %d: all is known since %s, want %s", seed, got, since)
			}
		}
	}
}

// TestRecentForgets shows that its memory is bounded, and that what was seen
// last is kept longest.
func TestRecentForgets(t *testing.T) {
	r := newRecent(time.Hour)
	for i := range recentIDs + 10 {
		if !r.add(fmt.Sprint(i)) {
			t.Fatalf("%d is known", i)
		}
	}
	if n, ring := len(r.known), len(r.ring); n != recentIDs || ring != recentIDs {
		t.Errorf("%d ids are kept, and %d in their order, want %d", n, ring, recentIDs)
	}
	if r.add("10") || !r.add("9") {
		t.Error("the oldest ids are not those that are forgotten")
	}
}

// TestMarks holds marks against all cursors that a chain has passed, at random
// speeds and with pauses. Behind them nothing is skipped that could still show
// up, and little is read again that could not.
func TestMarks(t *testing.T) {
	const back = 10 * time.Minute
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m, now := newMarks(back), noon
		at := now.Add(-time.Duration(rng.IntN(7200)) * time.Second) // how far behind the chain begins
		var passed []time.Time
		for i := range 400 {
			switch rng.IntN(20) {
			case 0: // the tenant is quiet
				now = now.Add(time.Duration(rng.IntN(1200)) * time.Second)
			default:
				now = now.Add(time.Duration(rng.IntN(4000)) * time.Millisecond)
			}
			if rng.IntN(4) > 0 {
				at = at.Add(time.Duration(rng.Int64N(int64(now.Sub(at))/2 + 1))).Truncate(time.Millisecond)
			}
			m.add(logID(at, 0), now)
			passed = append(passed, at)
			behind, ok := schema.IDTime(m.behind(logID(at, 0)))
			if !ok {
				t.Fatal("behind is no id")
			}
			if now.Sub(behind) < back && !behind.Equal(passed[0]) {
				t.Fatalf("seed %d, step %d: looks behind only to %s at %s", seed, i, behind, now)
			}
			newest := passed[0]
			for _, p := range passed {
				if now.Sub(p) >= back && p.After(newest) {
					newest = p
				}
			}
			if newest.Sub(behind) >= markEvery {
				t.Fatalf("seed %d, step %d: looks behind to %s at %s, though %s is old enough", seed, i, behind, now, newest)
			}
			if len(m.list) > int(back/markEvery)+2 {
				t.Fatalf("%d marks are kept", len(m.list))
			}
		}
	}
}

// TestMarksOfOtherIDs shows that ids without a time count from when they came.
func TestMarksOfOtherIDs(t *testing.T) {
	m := newMarks(time.Minute)
	if got := m.behind("now"); got != "now" {
		t.Errorf("without marks: %q", got)
	}
	for i := range 30 {
		m.add(fmt.Sprint("id ", i), noon.Add(time.Duration(i)*10*time.Second))
	}
	if got := m.behind("id 29"); got != "id 23" {
		t.Errorf("got %q, want the one of a minute before", got)
	}
}

func TestAfter(t *testing.T) {
	a, b, c := logID(noon, 1), logID(noon, 2), logID(noon, 3)
	page := func(next string, ids ...string) auth0.Page {
		p := auth0.Page{Next: next}
		for _, id := range ids {
			raw := `{"log_id":"` + id + `","date":"2026-11-20T12:00:00.000Z"}`
			if id == "" {
				raw = `{"broken"`
			}
			p.Events = append(p.Events, []byte(raw))
		}
		return p
	}
	for _, tt := range []struct {
		name, cursor string
		page         auth0.Page
		want         string
		ok           bool
	}{
		{"in order", a, page(c, b, c), c, true},
		{"out of order", a, page(b, c, b), c, true},
		{"no next", a, page("", b, c), c, true},
		{"nothing", a, page(a), a, false},
		{"nothing at all", a, page(""), a, false},
		{"next leads on", a, page(c, b), c, true},
		{"next leads back", b, page(a, c), c, true},
		{"everything leads back", c, page(a, a, b), c, false},
		{"broken events only", a, page(b, "", ""), b, true},
		{"broken events, no next", a, page("", "", ""), a, false},
		{"broken events among others", a, page("", "", b, ""), b, true},
		{"ids of another kind, which are rather repeated than skipped", "x1", page("", "x9", "x10"), "x9", true},
		{"from our ids to another kind", a, page("", "x9", "x10"), "x10", true},
		{"the way in", "", page(c, b, c, a), a, true},
		{"the way in, empty", "", page(""), "", false},
		{"the way in, broken", "", page(c, ""), "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := nextCursor(tt.cursor, identify(tt.page.Events), tt.page.Next); got != tt.want || ok != tt.ok {
				t.Errorf("got %q, %v, want %q, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestCaughtUp(t *testing.T) {
	old, recent := logID(noon.Add(-time.Hour), 1), logID(noon.Add(-time.Second), 1)
	for _, tt := range []struct {
		n    int
		last string
		want bool
	}{
		{0, old, true}, {0, recent, true}, {0, "", true},
		{1, recent, true}, {49, recent, true}, {50, recent, false}, {100, recent, false},
		{1, old, false}, {49, old, false}, {50, old, false},
		{1, "of another kind", true}, {60, "of another kind", false},
	} {
		if got := caughtUp(tt.n, tt.last, noon); got != tt.want {
			t.Errorf("%d events up to %.20s: %v, want %v", tt.n, tt.last, got, tt.want)
		}
	}
}

// TestOtherWay shows that the ways on from a refused cursor never lie after it,
// and come to an end.
func TestOtherWay(t *testing.T) {
	p := &Puller{cfg: Config{Log: discard}}
	id := logID(noon.Add(345*time.Millisecond), 7)
	var ways []string
	for cursor := id; cursor != ""; {
		next := p.earlierCursor(cursor)
		if next >= cursor {
			t.Fatalf("from %q on to %q", cursor, next)
		}
		ways, cursor = append(ways, next), next
	}
	if want := []string{"90020261120120000" + strings.Repeat("0", 39), ""}; !slices.Equal(ways, want) {
		t.Errorf("got %q, want %q", ways, want)
	}
	for _, cursor := range []string{"", "of another kind", strings.Repeat("9", 56)} {
		if got := p.earlierCursor(cursor); got != "" {
			t.Errorf("from %q on to %q, want the oldest event", cursor, got)
		}
	}
}
