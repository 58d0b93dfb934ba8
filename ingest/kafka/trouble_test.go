package kafka

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrouble goes through the life of a partition: only what fails again and again, or
// does not get on with what there is to do, is trouble.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress
		expect := func(when, want string) {
			t.Helper()
			got := p.trouble(true)
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", when, got, want)
			}
		}
		expect("at first", "")
		time.Sleep(time.Hour)
		expect("nothing to do for an hour", "")

		p.fetch(41)
		time.Sleep(59 * time.Second)
		expect("a record for less than a minute", "")
		time.Sleep(2 * time.Second)
		expect("a record for more than a minute", "no progress for 1m1s at offset 42")
		p.fetch(42)
		expect("another record does not help", "no progress for 1m1s")
		p.commit(42)
		expect("one of two is committed", "")
		time.Sleep(61 * time.Second)
		expect("the other is not", "no progress")
		p.commit(43)
		time.Sleep(time.Hour)
		expect("both are", "")

		p.fail(errors.New("no leader"))
		time.Sleep(9 * time.Second)
		expect("a failure that passes", "")
		p.fail(errors.New("still no leader"))
		time.Sleep(2 * time.Second)
		expect("a failure that stays", "fails for 11s: still no leader")
		p.fetch(43)
		p.commit(44)
		expect("it is over", "")

		if got := p.trouble(false); got != "" {
			t.Errorf("without commits: %q", got)
		}
		p.fetch(44)
		time.Sleep(time.Hour)
		if got := p.trouble(false); got != "" {
			t.Errorf("where no commit is expected: %q", got)
		}
		due := 0
		for range 600 { // ten a second
			if p.due() {
				due++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if due != 1 {
			t.Errorf("%d lines in a minute", due)
		}
	})
}
