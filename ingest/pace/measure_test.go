package pace

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0"
)

// These tests show each phase of the drawing in the package comment: how it begins, what it allows, and
// every way out of it.

// tenantBucket is the bucket of a tenant that nobody else uses.
type tenantBucket struct {
	size   int
	refill float64 // tokens a second
	tokens float64
	at     time.Time
}

func (b *tenantBucket) take() auth0.Limit {
	now := time.Now()
	if b.at.IsZero() {
		b.tokens = float64(b.size)
	} else {
		b.tokens = min(float64(b.size), b.tokens+b.refill*now.Sub(b.at).Seconds())
	}
	b.at = now
	b.tokens--
	return auth0.Limit{Known: true, Limit: b.size, Remaining: int(math.Floor(b.tokens + 1e-9)), Reset: time.Second}
}

// driven is a limiter whose calls a test makes one by one.
type driven struct {
	*Limiter
	t *testing.T
	b *tenantBucket
}

func newDriven(t *testing.T, b *tenantBucket) *driven { return &driven{New(0.5), t, b} }

// grant waits until a call may be made, and returns how long that took.
func (d *driven) grant() (granted time.Time, waited time.Duration) {
	d.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	granted, err := d.Wait(ctx, PriorityBackfill)
	if err != nil {
		d.t.Fatalf("no call within a minute, in phase %d", d.flow.phase)
	}
	return granted, time.Since(began)
}

// call makes a call and returns how long it had to wait.
func (d *driven) call() time.Duration {
	d.t.Helper()
	granted, waited := d.grant()
	d.Observe(d.b.take(), granted)
	return waited
}

// until makes calls until the limiter is in a phase.
func (d *driven) until(want phase) {
	d.t.Helper()
	for range 500 {
		if d.flow.phase == want {
			return
		}
		d.call()
	}
	d.t.Fatalf("phase %d is not reached; it is %d", want, d.flow.phase)
}

func (d *driven) want(want phase, when string) {
	d.t.Helper()
	if got := d.flow.phase; got != want {
		d.t.Errorf("%s: phase %d, want %d", when, got, want)
	}
}

func TestPhaseIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 40, refill: 10})
		d.want(phaseIdle, "before the limit is known")
		d.call()
		d.want(phaseIdle, "after the first answer")

		// Out by calls while the rate is unknown.
		d.call()
		d.want(phaseDraining, "a call while the rate is unknown")

		// Once the rate is known, and while no call waits, nothing is measured.
		d.until(phaseIdle)
		time.Sleep(time.Hour)
		d.call()
		d.want(phaseIdle, "a single call an hour later")

		// Out by calls that have to wait, when a measurement is due.
		d.until(phaseDraining)
	})
}

func TestPhaseDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 40, refill: 10})
		d.until(phaseDraining)
		for d.flow.phase == phaseDraining {
			left := d.last.Remaining
			if waited := d.call(); d.flow.phase == phaseDraining && waited > 0 {
				t.Fatalf("a call waited %s with %d tokens left", waited, left)
			}
		}
		if left := d.last.Remaining; left > 20 || left < 18 {
			t.Errorf("%d of 40 tokens were left at the end of the draining", left)
		}
	})

	// Back to idle if the bucket does not drain.
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 10, refill: 1e6})
		d.until(phaseDraining)
		for range 22 {
			d.call()
			time.Sleep(10 * time.Millisecond)
		}
		d.want(phaseIdle, "twice the bucket was called, and it is full")
		if !d.flow.proven {
			t.Error("a bucket that fills faster than we call is no result")
		}
	})
}

func TestPhaseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 40, refill: 10})
		d.until(phaseDraining)
		for d.left() > 21 {
			d.call()
		}

		// The call that takes the bucket to its half is in flight: another one has to wait for its answer.
		granted, _ := d.grant()
		answer := d.b.take()
		next := make(chan time.Time, 1)
		go func() {
			at, _ := d.grant()
			next <- at
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		d.want(phaseWaiting, "half of the bucket is left, a call is in flight")
		if len(next) > 0 {
			t.Error("a call was granted while another one was in flight")
		}

		// Out by its answer.
		d.Observe(answer, granted)
		at := <-next
		d.want(phaseWatching, "no call is in flight")
		d.Observe(d.b.take(), at)
	})
}

func TestPhaseWatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 40, refill: 10})
		d.until(phaseWatching)

		// One call at a time.
		granted, _ := d.grant()
		next := make(chan time.Time, 1)
		go func() {
			at, _ := d.grant()
			next <- at
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(next) > 0 {
			t.Error("a call was granted while another one was in flight")
		}
		d.Observe(d.b.take(), granted)
		d.Observe(d.b.take(), <-next)

		// Out by enough tokens. They give the rate.
		began := time.Now()
		d.until(phaseIdle)
		if took := time.Since(began); took > longest/2 {
			t.Errorf("twenty tokens of ten a second took %s", took)
		}
		if !d.flow.proven || d.refill < 9 || d.refill > 11 {
			t.Errorf("measured %v tokens a second, want 10", d.refill)
		}
	})

	// Out by a bucket that fills up: it is drained again.
	synctest.Test(t, func(t *testing.T) {
		d := newDriven(t, &tenantBucket{size: 40, refill: 300})
		d.until(phaseWatching)
		d.until(phaseDraining)
	})
}

// TestPhaseEnds ends every phase by a refused call, and by another limit.
func TestPhaseEnds(t *testing.T) {
	for _, from := range []phase{phaseDraining, phaseWatching} {
		synctest.Test(t, func(t *testing.T) {
			d := newDriven(t, &tenantBucket{size: 40, refill: 10})
			d.until(from)
			d.Hold(time.Second)
			d.want(phaseIdle, "a call was refused")

			d.until(from)
			d.b = &tenantBucket{size: 100, refill: 20}
			granted, _ := d.grant()
			d.Observe(d.b.take(), granted)
			d.want(phaseIdle, "the limit has changed")
		})
	}
}
