package ingest

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// recentIDs is how many ids of recent events are kept for the overlap: twenty
// minutes of the fastest tenant at its usual share. An id takes about 100 bytes.
// What is forgotten is produced once more, which is harmless.
const recentIDs = 200_000

// recent knows which recent events have been pulled. Ids are kept as 128-bit
// hashes: two that collide would cost an event, and never will.
type recent struct {
	window time.Duration // ids stored longer ago are not kept: no overlap asks for them

	mu  sync.Mutex // guards ids
	ids *lru.LRU[xxh3.Uint128, struct{}]
}

func newRecent(window time.Duration) *recent {
	ids, err := lru.NewLRU[xxh3.Uint128, struct{}](recentIDs, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &recent{window: window, ids: ids}
}

// add notes an id and reports whether it was unknown.
func (r *recent) add(logID string, now time.Time) bool {
	if at, ok := schema.IDTime(logID); ok && now.Sub(at) > r.window {
		return true
	}
	key := xxh3.HashString128(logID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids.Contains(key) {
		return false
	}
	r.ids.Add(key, struct{}{})
	return true
}
