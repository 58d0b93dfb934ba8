package kafkalocal

import "testing"

// TestPositionsOfSeveralConsumers lets consumers fetch one partition in turns, each from where its last
// fetch has ended: none of them displaces another's position. Positions that nobody returns to are bounded.
func TestPositionsOfSeveralConsumers(t *testing.T) {
	v := newVerifier(t.TempDir())
	consumers := []int64{0, 500, 90_000}
	for _, offset := range consumers {
		v.keepPosition("events-0", position{offset: offset, at: 10 * offset})
	}

	for range 100 {
		for i, offset := range consumers {
			found, ok := v.takePosition("events-0", offset)
			if !ok || found.at != 10*offset {
				t.Fatalf("the position of offset %d is %+v, %v", offset, found, ok)
			}
			consumers[i] = offset + 7
			v.keepPosition("events-0", position{offset: consumers[i], at: 10 * consumers[i]})
		}
	}

	for i := range 3 * maxPositions {
		v.keepPosition("events-0", position{offset: int64(1_000_000 + i)})
	}
	if n := len(v.positions["events-0"]); n != maxPositions {
		t.Errorf("%d positions are kept, want %d", n, maxPositions)
	}
	if _, ok := v.takePosition("events-0", consumers[0]); ok {
		t.Error("the oldest positions are not those that are dropped")
	}
	if _, ok := v.takePosition("events-1", 1_000_000+3*maxPositions-1); ok {
		t.Error("a position of another partition")
	}
}
