package auth0sim

import (
	"cmp"
	"math"
	"testing"
	"time"
)

func FuzzCivil(f *testing.F) {
	for _, us := range []int64{0, -1, 1, 951782400000000, 951868799999999, -62135596800000000, 253402300799999999, 1761048000123456} {
		f.Add(us)
	}
	f.Fuzz(func(t *testing.T, us int64) {
		us %= 253402300800000000 // ±8,000 years
		want := time.UnixMicro(us).UTC()
		c := civilOf(us)
		if got := c.us(); got != us {
			t.Errorf("civilOf(%d).us() = %d", us, got)
		}
		got := time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, c.micros*1000, time.UTC)
		if !got.Equal(want) || c.month < 1 || c.month > 12 || c.day < 1 || c.day > daysIn(c.year, c.month) {
			t.Errorf("civilOf(%d) = %+v, want %v", us, c, want)
		}
		if y := want.Year(); y < 1 || y > 9999 {
			return
		}
		if got, want := string(appendDate(nil, us)), want.Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Errorf("appendDate(%d) = %s, want %s", us, got, want)
		}
		p := pos{us, otherTail + uint64(us&0xffff)}
		if q, ok := parseID(p.id()); !ok || q != p {
			t.Errorf("parseID(%s) = %v, %v, want %v", p.id(), q, ok, p)
		}
	})
}

func FuzzParseID(f *testing.F) {
	const us = 1761048000123456
	for _, s := range []string{
		pos{us, bulkTail}.id(),
		"90020251021120000000000000000000000000000000000000000000",
		"90020251000000000000000000000000000000000000000000000000",
		"90020250230120000000000000000000000000000000000000000000",
		"90020251021250000000000000000000000000000000000000000000",
		"90020251021126100000000000000000000000000000000000000000",
		"90020251021120000123456000000000000019999999999999999999",
		"90020200113151943625000993024408641221974042823186448498",
		"89999999999999999999999999999999999999999999999999999999",
		"90100000000000000000000000000000000000000000000000000000",
		"", "x",
	} {
		f.Add(s, int64(us), uint64(7))
	}
	f.Fuzz(func(t *testing.T, s string, us int64, n uint64) {
		us = (us%253402300800000000 + 253402300800000000) % 253402300800000000 // 1970 to 9999
		p, ok := parseID(s)
		digits := len(s) == idLength
		for _, c := range []byte(s) {
			digits = digits && c >= '0' && c <= '9'
		}
		if ok != digits {
			t.Fatalf("parseID(%q) says %v", s, ok)
		}
		if !ok {
			return
		}
		times := []int64{us}
		if p.us > 0 && p.us < 253402300000000000 {
			times = append(times, p.us-1, p.us, p.us+1)
		}
		for _, us := range times {
			for _, q := range []pos{{us, bulkTail + n%1e9}, {us, otherTail + n%1e9}} {
				if got, want := p.compare(q), cmp.Compare(s, q.id()); got != want {
					t.Errorf("%s compares to %s as %d, want %d", s, q.id(), got, want)
				}
			}
		}
	})
}

func TestTimelineInverse(t *testing.T) {
	anchor := micros(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	for _, tl := range []timeline{
		{seed: 1, history: 3000, start: anchor - 3600e6, anchor: anchor, rate: 37.5},
		{seed: 2, history: 0, start: anchor - 1, anchor: anchor, rate: 20_000},
		{seed: 3, history: 5000, start: anchor - 1000, anchor: anchor, rate: 0.01},
		{seed: 4, history: 800, start: anchor - 3600e6, anchor: anchor},
	} {
		end := tl.history
		if tl.rate > 0 {
			end += 3000
		}
		for i := int64(0); i < end; i++ {
			p := tl.pos(i)
			if i > 0 && !tl.pos(i-1).less(p) {
				t.Fatalf("seed %d: event %d is not above event %d", tl.seed, i, i-1)
			}
			if got := tl.after(p); got != i+1 {
				t.Fatalf("seed %d: after(pos(%d)) = %d", tl.seed, i, got)
			}
			if got, ok := tl.index(p); !ok || got != i {
				t.Fatalf("seed %d: index(pos(%d)) = %d, %v", tl.seed, i, got, ok)
			}
			if first := tl.first(p.us); first > i || tl.at(first) != p.us || first > 0 && tl.at(first-1) == p.us {
				t.Fatalf("seed %d: first(at(%d)) = %d", tl.seed, i, first)
			}
		}
		if got := tl.after(pos{math.MinInt64, 0}); got != 0 {
			t.Errorf("seed %d: after the lowest position comes event %d", tl.seed, got)
		}
	}
}
