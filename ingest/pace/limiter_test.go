package pace_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/pace"
)

// bucket is a tenant's limit. A call takes a token or gets a 429.
type bucket struct {
	size    int
	refill  float64       // tokens a second
	window  time.Duration // all tokens come back at its end; 0 for a token bucket
	latency time.Duration // half of it before the token is taken
	jitter  float64       // part of the latency that varies

	mu      sync.Mutex // guards what follows
	tokens  float64
	at      time.Time
	calls   []time.Time // served
	refused int
}

func (b *bucket) fill(now time.Time) {
	if b.at.IsZero() {
		b.tokens, b.at = float64(b.size), now
	}
	if b.window > 0 {
		if now.Truncate(b.window).After(b.at.Truncate(b.window)) {
			b.tokens = float64(b.size)
		}
	} else {
		b.tokens = min(b.tokens+b.refill*now.Sub(b.at).Seconds(), float64(b.size))
	}
	b.at = now
}

// take takes a token and tells the limit as Auth0's headers do: a reset in whole
// seconds of the epoch, of which the client takes the server's Date.
func (b *bucket) take() (ok bool, l auth0.Limit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.fill(now)
	if ok = b.tokens >= 1-1e-9; ok {
		b.tokens--
	}
	whole := math.Floor(b.tokens + 1e-9)
	l = auth0.Limit{Known: true, Limit: b.size, Remaining: int(whole)}
	reset := now.Truncate(max(b.window, 1)).Add(b.window)
	if b.window == 0 {
		reset = now.Add(time.Duration((whole + 1 - b.tokens) / b.refill * 1e9))
	}
	l.Reset = reset.Add(time.Second - 1).Truncate(time.Second).Sub(now.Truncate(time.Second))
	return ok, l
}

// call is one call of ours, as soon as it may be made. It is false when ctx ends
// before.
func (b *bucket) call(ctx context.Context, p *pace.Limiter, class pace.Priority, rng *rand.Rand) bool {
	granted, err := p.Wait(ctx, class)
	if err != nil {
		return false
	}
	half := b.latency / 2
	if b.jitter > 0 && rng != nil {
		half = time.Duration(float64(half) * (1 + b.jitter*rng.Float64()))
	}
	time.Sleep(half)
	ok, l := b.take()
	b.mu.Lock()
	if ok {
		b.calls = append(b.calls, time.Now())
	} else {
		b.refused++
	}
	b.mu.Unlock()
	time.Sleep(half)
	p.Observe(l, granted)
	if !ok {
		p.Hold(max(l.Reset, 500*time.Millisecond))
	}
	return true
}

// busy calls with n callers until a time.
func (b *bucket) busy(t *testing.T, p *pace.Limiter, n int, class pace.Priority, until time.Time) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithDeadline(t.Context(), until)
	defer cancel()
	for i := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for b.call(ctx, p, class, rng) {
			}
		})
	}
	<-ctx.Done()
}

// TestPacerBusy calls as fast as the pacer allows for ten minutes, the time it
// takes to learn the limit included, and shows how much of our share is used.
func TestPacerBusy(t *testing.T) {
	for _, tt := range []struct {
		size     int
		refill   float64
		window   time.Duration
		share    float64
		latency  time.Duration
		low, top float64 // of our share, but for the first burst
	}{
		// Buckets that Auth0 documents.
		{10, 100.0 / 60, 0, 0.7, 50 * time.Millisecond, 0.95, 1.05},
		{10, 100.0 / 60, 0, 0.3, 20 * time.Millisecond, 0.95, 1.05},
		{10, 2, 0, 0.7, 50 * time.Millisecond, 0.95, 1.05},
		{50, 16, 0, 0.3, 50 * time.Millisecond, 0.95, 1.05},
		{50, 16, 0, 0.7, 0, 0.95, 1.05},
		{50, 16, 0, 0.1, 300 * time.Millisecond, 0.95, 1.05},
		{50, 16, 0, 1, 50 * time.Millisecond, 0.95, 1.05},
		{20, 20, 0, 0.7, 300 * time.Millisecond, 0.95, 1.05},
		{2, 2, 0, 0.3, 20 * time.Millisecond, 0.95, 1.05},
		{2, 2, 0, 1, 50 * time.Millisecond, 0.95, 1.05},
		// So many a second.
		{50, 50, 0, 0.3, 0, 0.95, 1.05},
		{50, 50, 0, 0.3, 50 * time.Millisecond, 0.95, 1.05},
		{50, 50, 0, 1, 50 * time.Millisecond, 0.95, 1.05},
		{100, 100, 0, 0.7, 50 * time.Millisecond, 0.95, 1.05},
		{10, 10, 0, 0.3, 50 * time.Millisecond, 0.95, 1.05},
		// Others.
		{500, 100, 0, 0.3, 50 * time.Millisecond, 0.95, 1.05},
		{50, 100, 0, 0.7, 50 * time.Millisecond, 0.95, 1.05},
		// Fixed windows.
		{50, 50, time.Second, 0.1, 50 * time.Millisecond, 0.95, 1.05},
		{50, 50, time.Second, 0.3, 20 * time.Millisecond, 0.95, 1.05},
		{50, 50, time.Second, 0.7, 50 * time.Millisecond, 0.95, 1.05},
		{50, 50, time.Second, 1, 50 * time.Millisecond, 0.95, 1.05},
		{50, 50, time.Second, 1, 100 * time.Millisecond, 0.95, 1.05},
		{100, 100, time.Second, 1, 20 * time.Millisecond, 0.95, 1.05},
		{10, 10, time.Second, 0.3, 0, 0.95, 1.05},
		{2, 2, time.Second, 0.3, 0, 0.95, 1.05},
		{10, 10.0 / 60, time.Minute, 0.7, 0, 0.95, 1.1},
		{100, 100.0 / 60, time.Minute, 0.3, 50 * time.Millisecond, 0.95, 1.05},
		{500, 500.0 / 60, time.Minute, 1, 50 * time.Millisecond, 0.95, 1.05},
	} {
		t.Run(fmt.Sprintf("size %d refill %.2f window %s share %g latency %s", tt.size, tt.refill, tt.window, tt.share, tt.latency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pace.New(tt.share)
				b := &bucket{size: tt.size, refill: tt.refill, window: tt.window, latency: tt.latency, jitter: 0.3}
				const minutes = 10
				time.Sleep(370 * time.Millisecond) // windows end at other times than we begin
				b.busy(t, p, 16, pace.PriorityBackfill, time.Now().Add(minutes*time.Minute))
				ours := tt.share * tt.refill * minutes * 60
				burst := tt.share * float64(tt.size)
				n := float64(len(b.calls))
				if n < tt.low*ours-1 || n > tt.top*ours+burst+1 {
					t.Errorf("%g calls, %.1f %% of our share; refill %.2f", n, 100*n/ours, p.Use().Refill)
				}
				if refused := float64(b.refused) / (n + float64(b.refused)); refused > 0.01 {
					t.Errorf("%d of %g calls were refused", b.refused, n)
				}
			})
		})
	}
}

// TestPacerNeverOveruses is the rule for limits of any kind: a busy backfill
// keeps to its share, though it may use less where little can be measured.
func TestPacerNeverOveruses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		size, share := 10+rng.IntN(490), 0.1+0.8*rng.Float64()
		refill := 1 + 60*rng.Float64()*rng.Float64()
		callers := 1 << rng.IntN(4)
		latency := []time.Duration{0, 50 * time.Millisecond, 300 * time.Millisecond}[rng.IntN(3)]
		t.Run(fmt.Sprintf("%d size %d refill %.2f share %.2f callers %d latency %s", i, size, refill, share, callers, latency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pace.New(share)
				b := &bucket{size: size, refill: refill, latency: latency, jitter: 0.3}
				b.busy(t, p, callers, pace.PriorityBackfill, time.Now().Add(10*time.Minute))
				n, most := float64(len(b.calls)), 1.1*share*refill*600+(share+0.5)*float64(size)+30
				if n > most || b.refused > 6 {
					t.Errorf("%g calls and %d refused, at most %.0f are ours; refill %.2f", n, b.refused, most, p.Use().Refill)
				}
			})
		})
	}
}

// TestPacerChange shows that a limit that changes is learned again.
func TestPacerChange(t *testing.T) {
	for _, tt := range []struct {
		name          string
		size          int
		refill, share float64
	}{
		{"less flows in", 50, 8, 0.7},
		{"more flows in", 50, 30, 0.7},
		{"a smaller bucket", 20, 5, 0.7},
		{"a bigger one", 100, 20, 0.7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pace.New(tt.share)
				b := &bucket{size: 50, refill: 16, latency: 50 * time.Millisecond}
				b.busy(t, p, 8, pace.PriorityBackfill, time.Now().Add(3*time.Minute))
				b.mu.Lock()
				b.size, b.refill, b.tokens = tt.size, tt.refill, min(b.tokens, float64(tt.size))
				b.mu.Unlock()
				b.busy(t, p, 8, pace.PriorityBackfill, time.Now().Add(6*time.Minute))
				if got := p.Use().Refill; math.Abs(got-tt.refill) > 0.1*tt.refill {
					t.Errorf("refill %.2f, want %g", got, tt.refill)
				}
			})
		})
	}
}

// TestPacerLostAnswers shows that calls that end without a limit, or are given
// up at the moment they may be made, stop nothing.
func TestPacerLostAnswers(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3, 4, 5} {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			p := pace.New(0.7)
			b := &bucket{size: 10, refill: 100.0 / 60}
			calls := 0
			for begin := time.Now(); time.Since(begin) < 10*time.Minute; {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rng.IntN(20))*time.Second)
				if granted, err := p.Wait(ctx, pace.PriorityBackfill); err == nil {
					calls++
					if _, l := b.take(); rng.IntN(3) > 0 {
						p.Observe(l, granted)
					} else {
						p.Observe(auth0.Limit{}, granted)
					}
				}
				cancel()
			}
			if calls < 350 || calls > 800 {
				t.Errorf("seed %d: %d calls, 700 are ours", seed, calls)
			}
		})
	}
}

// TestPacerNeighbour shares the bucket with somebody who uses the rest steadily.
func TestPacerNeighbour(t *testing.T) {
	for _, tt := range []struct {
		size          int
		refill, share float64
	}{{10, 2, 0.5}, {50, 16, 0.5}, {50, 16, 0.7}, {50, 50, 0.7}, {10, 100.0 / 60, 0.3}} {
		t.Run(fmt.Sprintf("size %d refill %.2f share %g", tt.size, tt.refill, tt.share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pace.New(tt.share)
				b := &bucket{size: tt.size, refill: tt.refill, latency: 50 * time.Millisecond}
				until := time.Now().Add(10 * time.Minute)
				var refused, calls int
				var wg sync.WaitGroup
				wg.Go(func() {
					for time.Now().Before(until) {
						time.Sleep(time.Duration(1e9 / (tt.refill * (1 - tt.share))))
						if ok, _ := b.take(); !ok {
							refused++
						}
						calls++
					}
				})
				b.busy(t, p, 8, pace.PriorityBackfill, until)
				wg.Wait()
				if refused*50 > calls || b.refused*100 > len(b.calls) {
					t.Errorf("%d of the neighbour's %d calls were refused, and %d of our %d", refused, calls, b.refused, len(b.calls))
				}
				if most := 1.1*tt.share*tt.refill*600 + tt.share*float64(tt.size); float64(len(b.calls)) > most {
					t.Errorf("%d calls, at most %.0f are ours", len(b.calls), most)
				}
			})
		})
	}
}

// TestPacerClasses shows how waiting callers share: the tail goes first, the
// others by weight, and audits never have more than their part.
func TestPacerClasses(t *testing.T) {
	serve := func(t *testing.T, classes ...pace.Priority) (calls [4]float64, sum float64) {
		p := pace.New(0.5)
		b := &bucket{size: 50, refill: 40}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, class := range classes {
			for range 4 {
				wg.Go(func() {
					for b.call(ctx, p, class, nil) {
						mu.Lock()
						calls[class]++
						sum++
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		return calls, sum
	}
	near := func(t *testing.T, what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.02 {
			t.Errorf("%s has %.3f, want %.2f", what, got, want)
		}
	}
	t.Run("all but the tail", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, sum := serve(t, pace.PriorityOverlap, pace.PriorityBackfill, pace.PriorityAudit)
			near(t, "overlap", calls[pace.PriorityOverlap]/sum, 0.2)
			near(t, "backfill", calls[pace.PriorityBackfill]/sum, 0.75)
			near(t, "audit", calls[pace.PriorityAudit]/sum, 0.05)
		})
	})
	t.Run("two", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, sum := serve(t, pace.PriorityOverlap, pace.PriorityBackfill)
			near(t, "overlap", calls[pace.PriorityOverlap]/sum, 20.0/95)
		})
	})
	t.Run("the tail first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, sum := serve(t, pace.PriorityTail, pace.PriorityBackfill)
			near(t, "tail", calls[pace.PriorityTail]/sum, 1)
		})
	})
	t.Run("audits alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, _ := serve(t, pace.PriorityAudit)
			if most := 0.05*0.5*50*300 + 1; calls[pace.PriorityAudit] > most || calls[pace.PriorityAudit] < 100 {
				t.Errorf("%g audits, at most %g", calls[pace.PriorityAudit], most)
			}
		})
	})
	t.Run("audits without a limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pace.New(0.5)
			begin := time.Now()
			for range 11 {
				if _, err := p.Wait(t.Context(), pace.PriorityAudit); err != nil {
					t.Fatal(err)
				}
				p.Observe(auth0.Limit{}, time.Now())
			}
			if d := time.Since(begin); d < 10*time.Second || d > 11*time.Second {
				t.Errorf("eleven audits took %s", d)
			}
		})
	})
}

// TestPacerHold shows that a 429 stops all calls, for the longer of two times.
func TestPacerHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(0.7)
		begin := time.Now()
		if _, err := p.Wait(t.Context(), pace.PriorityTail); err != nil || time.Since(begin) != 0 {
			t.Errorf("the first call waits for %s, %v", time.Since(begin), err)
		}
		p.Observe(auth0.Limit{}, time.Now())
		p.Hold(20 * time.Second)
		p.Hold(5 * time.Second)
		ended := make(chan time.Duration, 4)
		for range 3 {
			go func() {
				if _, err := p.Wait(t.Context(), pace.PriorityBackfill); err != nil {
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
		if _, err := p.Wait(t.Context(), pace.PriorityTail); err != nil || time.Since(begin) != 35*time.Second {
			t.Errorf("the next one waits until %s, %v", time.Since(begin), err)
		}
	})
}

// TestPacerWithoutLimit shows that a tenant that tells no limit is not paced.
func TestPacerWithoutLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(0.1)
		begin := time.Now()
		for range 1000 {
			if _, err := p.Wait(t.Context(), pace.PriorityBackfill); err != nil {
				t.Fatal(err)
			}
			p.Observe(auth0.Limit{Limit: 10, Reset: 7 * time.Second}, time.Now())
		}
		if d := time.Since(begin); d != 0 || p.Use().Rate != 0 {
			t.Errorf("a thousand calls took %s, %+v", d, p.Use())
		}
	})
}

// TestPacerEnds shows that Wait ends with its context, and leaves the queue.
func TestPacerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(0.5)
		p.Hold(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := p.Wait(ctx, pace.PriorityBackfill); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Second {
					t.Errorf("got %v after %s", err, time.Since(begin))
				}
			})
		}
		wg.Wait()
		if _, err := p.Wait(ctx, pace.PriorityTail); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v of a context that has ended", err)
		}
		// Nobody is left in the queue to take the turn of the next.
		if _, err := p.Wait(t.Context(), pace.PriorityBackfill); err != nil || time.Since(begin) != time.Hour {
			t.Errorf("the next one waits for %s, %v", time.Since(begin), err)
		}
		p.Observe(auth0.Limit{}, time.Now())
		if _, err := p.Wait(t.Context(), pace.PriorityBackfill); err != nil {
			t.Error(err)
		}
	})
}

// TestPacerUse shows what is told of the use.
func TestPacerUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace.New(0.5)
		b := &bucket{size: 50, refill: 16}
		b.busy(t, p, 8, pace.PriorityBackfill, time.Now().Add(40*time.Second))
		u := p.Use()
		if math.Abs(u.Refill-16) > 1.6 || math.Abs(u.Rate-u.Refill/2) > 1e-9 || u.Calls < 0 || u.Calls > 25 {
			t.Errorf("got %+v", u)
		}
		if l := p.Limit(); !l.Known || l.Limit != 50 {
			t.Errorf("limit %+v", l)
		}
		time.Sleep(time.Minute)
		if u := p.Use(); u.Calls != 0 {
			t.Errorf("%g calls a second after a minute without any", u.Calls)
		}
	})
}

// BenchmarkPacer is a call of one of sixteen callers, none of which waits long.
func BenchmarkPacer(b *testing.B) {
	p := pace.New(1)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			granted, err := p.Wait(context.Background(), pace.PriorityBackfill)
			if err != nil {
				return
			}
			p.Observe(auth0.Limit{Known: true, Limit: 1 << 30, Remaining: 1 << 29, Reset: time.Second}, granted)
		}
	})
}

// TestPacerRest polls a small limit as the tail does while a backfill waits: both
// have their turn. Without Rest the polls alone use all that is ours.
func TestPacerRest(t *testing.T) {
	for _, tt := range []struct {
		size   int
		refill float64
		share  float64
	}{{10, 2, 0.3}, {1, 1, 1}, {10, 2, 1}} {
		t.Run(fmt.Sprintf("%d at %v a second, %v of them", tt.size, tt.refill, tt.share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bucket{size: tt.size, refill: tt.refill, latency: 100 * time.Millisecond}
				p := pace.New(tt.share)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				var polls, others int
				var wg sync.WaitGroup
				wg.Go(func() {
					for b.call(ctx, p, pace.PriorityTail, nil) {
						polls++
						time.Sleep(max(time.Second, p.Rest()))
					}
				})
				for range 16 {
					wg.Go(func() {
						for b.call(ctx, p, pace.PriorityBackfill, nil) {
							b.mu.Lock()
							others++
							b.mu.Unlock()
						}
					})
				}
				wg.Wait()
				ours := tt.share * tt.refill * 1200
				if float64(others) < 0.3*ours || float64(polls) < 0.25*ours || float64(polls) > 0.7*ours {
					t.Errorf("%d polls and %d calls of the backfill, of %.0f that are ours", polls, others, ours)
				}
				if p.Rest() != 0 {
					t.Error("nobody waits any more")
				}
			})
		})
	}
}
