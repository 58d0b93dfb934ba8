package ingest

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// recentIDs is how many ids of recent events are kept for the overlap: twenty
// minutes of the fastest tenant at its usual share. An id takes about 120 bytes.
// The overlap does not reach beyond what is forgotten: all would seem late there.
const recentIDs = 200_000

// recent knows which recent events have been pulled. Ids are kept as 128-bit
// hashes: two that collide would cost an event, and never will.
type recent struct {
	mu     sync.Mutex                        // guards what follows
	window time.Duration                     // ids stored longer ago are not kept: no overlap asks for them
	ids    *lru.LRU[xxh3.Uint128, time.Time] // with the time of the id
	forgot time.Time                         // of the newest id that had to go
}

func newRecent(window time.Duration) *recent {
	r := &recent{window: window}
	var err error
	r.ids, err = lru.NewLRU(recentIDs, func(_ xxh3.Uint128, at time.Time) {
		if at.After(r.forgot) {
			r.forgot = at
		}
	})
	if err != nil {
		panic(err) // only for a size below 1
	}
	return r
}

// add notes an id and reports whether it was unknown.
func (r *recent) add(logID string, now time.Time) bool {
	key := xxh3.HashString128(logID)
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := schema.IDTime(logID)
	if ok && now.Sub(at) > r.window {
		return true
	}
	if r.ids.Contains(key) {
		return false
	}
	r.ids.Add(key, at)
	return true
}

// since is the time from which on all ids are known that were added, as far as
// they lie in the window.
func (r *recent) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forgot
}

// widen keeps ids that were stored up to so long ago.
func (r *recent) widen(window time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.window = window
}
