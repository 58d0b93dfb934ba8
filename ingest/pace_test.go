package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest"
)

// bucket is a tenant's token bucket. A call takes a token or gets a 429.
type bucket struct {
	size   int
	refill float64 // tokens a second
	tokens float64
	at     time.Time
}

func newBucket(size int, refill float64) *bucket {
	return &bucket{size: size, refill: refill, tokens: float64(size), at: time.Now()}
}

// fill adds what flowed in.
func (b *bucket) fill() {
	now := time.Now()
	b.tokens = min(b.tokens+b.refill*now.Sub(b.at).Seconds(), float64(b.size))
	b.at = now
}

// call takes a token and tells the limit as Auth0's headers do, in whole tokens
// and seconds.
func (b *bucket) call() (ok bool, l ingest.Limit) {
	b.fill()
	if ok = b.tokens >= 1; ok {
		b.tokens--
	}
	whole := math.Floor(b.tokens)
	l = ingest.Limit{Known: true, Limit: b.size, Remaining: int(whole)}
	l.Reset = time.Duration(math.Ceil((whole+1-b.tokens)/b.refill)) * time.Second
	return ok, l
}

// TestPacerKeepsItsShare calls as fast as the pacer allows against buckets of
// many kinds. Nobody is ever refused, the others' share stays in the bucket, and
// once the refill rate is known no window of time has more calls than our share
// of it and what we may take at once.
func TestPacerKeepsItsShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		size, share := 2+rng.IntN(100), 0.1+0.8*rng.Float64()
		refill := 0.2 + 20*rng.Float64()*rng.Float64()
		t.Run(fmt.Sprintf("%d size %d refill %.2f share %.2f", i, size, refill, share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := ingest.NewPacer(share), newBucket(size, refill)
				ours := int(share * float64(size))
				begin := time.Now()
				// A measurement is believed for five minutes.
				for time.Since(begin) < 4*time.Minute {
					if err := p.Wait(t.Context(), ingest.Tail); err != nil {
						t.Fatal(err)
					}
					b.fill()
					ok, l := b.call()
					if !ok {
						t.Fatalf("refused after %s", time.Since(begin))
					}
					// A share below one token is one call for each reset all the same.
					if reserve := size - max(ours, 1); l.Remaining < reserve {
						t.Fatalf("%d left after %s, of which the others' share is %d", l.Remaining, time.Since(begin), reserve)
					}
					p.Observe(l)
				}
			})
		})
	}
}

// TestPacerRate shows the rate that a busy chain settles at: never above the
// share of what flows in, in any window, and not far below it.
func TestPacerRate(t *testing.T) {
	for _, tt := range []struct {
		size          int
		refill, share float64
	}{
		{10, 2, 0.7}, {10, 2, 0.3}, {50, 15, 0.7}, {50, 16, 0.5}, {100, 3, 0.7}, {500, 50, 0.9}, {10, 0.5, 0.7}, {10, 9, 0.7}, {10, 100, 0.7},
	} {
		t.Run(fmt.Sprintf("size %d refill %g share %g", tt.size, tt.refill, tt.share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := ingest.NewPacer(tt.share), newBucket(tt.size, tt.refill)
				begin := time.Now()
				var calls []time.Duration
				// The first minute is for learning.
				for time.Since(begin) < 5*time.Minute {
					if err := p.Wait(t.Context(), ingest.Tail); err != nil {
						t.Fatal(err)
					}
					_, l := b.call()
					if at := time.Since(begin); at > time.Minute {
						calls = append(calls, at)
					}
					p.Observe(l)
				}
				// What is measured is whole tokens over five seconds or more.
				rate := tt.share * (tt.refill + 0.4)
				if ours := tt.share * float64(tt.size); ours < tt.refill {
					rate = max(rate, ours) // a bucket that stays full tells no rate
				}
				burst := tt.share * float64(tt.size)
				for i := range calls {
					for j := i; j < len(calls); j += 1 + (j-i)/8 {
						window := (calls[j] - calls[i]).Seconds()
						if n := float64(j - i + 1); n > rate*window+burst+1 {
							t.Fatalf("%g calls within %.1f s, at most %.1f are ours", n, window, rate*window+burst)
						}
					}
				}
				least := min(tt.share*tt.refill, tt.share*float64(tt.size)) * 4 * 60 * 0.5
				if float64(len(calls)) < least {
					t.Errorf("only %d calls in four minutes, want %.0f", len(calls), least)
				}
			})
		})
	}
}

// TestPacerBusyNeighbour shares the bucket with somebody who takes whatever is
// there: we are refused now and then, but do not add to it.
func TestPacerBusyNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := ingest.NewPacer(0.5), newBucket(20, 4)
		begin := time.Now()
		calls := 0
		for time.Since(begin) < 10*time.Minute {
			if err := p.Wait(t.Context(), ingest.Tail); err != nil {
				t.Fatal(err)
			}
			b.fill()
			b.tokens = max(0, b.tokens-6) // the neighbour's
			_, l := b.call()
			p.Observe(l)
			calls++
		}
		if most := 10*60*2 + 20; calls > most {
			t.Errorf("%d calls in ten minutes, at most %d are ours", calls, most)
		}
	})
}

// TestPacerHold shows that a 429 stops all calls, for the longer of two times.
func TestPacerHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ingest.NewPacer(0.7)
		begin := time.Now()
		if err := p.Wait(t.Context(), ingest.Tail); err != nil || time.Since(begin) != 0 {
			t.Errorf("the first call waits for %s, %v", time.Since(begin), err)
		}
		p.Hold(20 * time.Second)
		p.Hold(5 * time.Second)
		ended := make(chan time.Duration, 4)
		for range 3 {
			go func() {
				if err := p.Wait(t.Context(), ingest.Tail); err != nil {
					t.Error(err)
				}
				ended <- time.Since(begin)
			}()
		}
		// A call that waits already waits longer when another one is refused.
		time.Sleep(10 * time.Second)
		p.Hold(25 * time.Second)
		for range 3 {
			if d := <-ended; d != 35*time.Second {
				t.Errorf("waited until %s, want 35s", d)
			}
		}
		if err := p.Wait(t.Context(), ingest.Tail); err != nil || time.Since(begin) != 35*time.Second {
			t.Errorf("the next one waits until %s, %v", time.Since(begin), err)
		}
	})
}

// TestPacerReset shows when an answer makes us wait: when no more than the
// others' share is left, until the reset that it tells.
func TestPacerReset(t *testing.T) {
	for _, tt := range []struct {
		name  string
		share float64
		limit ingest.Limit
		want  time.Duration
	}{
		{"plenty left", 0.7, ingest.Limit{Known: true, Limit: 10, Remaining: 9, Reset: 7 * time.Second}, 0},
		{"one above the others' share", 0.7, ingest.Limit{Known: true, Limit: 10, Remaining: 4, Reset: 7 * time.Second}, 0},
		{"the others' share", 0.7, ingest.Limit{Known: true, Limit: 10, Remaining: 3, Reset: 7 * time.Second}, 7 * time.Second},
		{"less than that", 0.7, ingest.Limit{Known: true, Limit: 10, Remaining: 1, Reset: 7 * time.Second}, 7 * time.Second},
		{"nothing", 0.7, ingest.Limit{Known: true, Limit: 10, Reset: 7 * time.Second}, 7 * time.Second},
		{"nothing, and all is ours", 1, ingest.Limit{Known: true, Limit: 10, Reset: 7 * time.Second}, 7 * time.Second},
		{"one, and all is ours", 1, ingest.Limit{Known: true, Limit: 10, Remaining: 1, Reset: 7 * time.Second}, 0},
		{"no limit is told", 0.7, ingest.Limit{Limit: 10, Reset: 7 * time.Second}, 0},
		{"a limit of nothing", 0.7, ingest.Limit{Known: true, Reset: 7 * time.Second}, 0},
		{"a negative limit", 0.7, ingest.Limit{Known: true, Limit: -5, Remaining: -9, Reset: 7 * time.Second}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := ingest.NewPacer(tt.share)
				p.Observe(tt.limit)
				begin := time.Now()
				if err := p.Wait(t.Context(), ingest.Tail); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(begin); got < tt.want || got > tt.want+time.Second {
					t.Errorf("waited %s, want %s", got, tt.want)
				}
				if tt.limit.Known && tt.limit.Limit > 0 && p.Limit() != tt.limit {
					t.Errorf("limit %+v, want %+v", p.Limit(), tt.limit)
				}
			})
		})
	}
}

// TestPacerWithoutLimit shows that a tenant that tells no limit is not paced.
func TestPacerWithoutLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ingest.NewPacer(0.1)
		begin := time.Now()
		for range 1000 {
			if err := p.Wait(t.Context(), ingest.Tail); err != nil {
				t.Fatal(err)
			}
			p.Observe(ingest.Limit{})
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("a thousand calls took %s", d)
		}
	})
}

// TestPacerEnds shows that Wait ends with its context.
func TestPacerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ingest.NewPacer(0.5)
		p.Hold(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		if err := p.Wait(ctx, ingest.Tail); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
		if err := p.Wait(ctx, ingest.Tail); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v of a context that has ended", err)
		}
	})
}
