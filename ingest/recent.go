package ingest

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// recentIDs is how many ids of recent events are kept for the overlap: twenty
// minutes of the fastest tenant at its usual share. An id takes 114 bytes.
// The overlap does not reach beyond what is forgotten: all would seem late there.
const recentIDs = 200_000

// recent knows which recent events have been pulled. Ids are kept as 128-bit
// hashes: two that collide would cost an event, and never will.
type recent struct {
	mu     sync.Mutex                    // guards what follows
	window time.Duration                 // ids of the past that come later than this are not kept
	ids    *lru.LRU[xxh3.Uint128, int64] // with the time of the id, in µs since 1970
	forgot time.Time                     // of the newest id that had to go, or was not kept
}

func newRecent(window time.Duration) *recent {
	r := &recent{window: window}
	var err error
	r.ids, err = lru.NewLRU(recentIDs, func(_ xxh3.Uint128, us int64) {
		if at := time.UnixMicro(us).UTC(); at.After(r.forgot) {
			r.forgot = at
		}
	})
	if err != nil {
		panic(err) // only for a size below 1
	}
	return r
}

// add notes an id and reports whether it was unknown.
func (r *recent) add(logID string) bool {
	key := xxh3.HashString128(logID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids.Contains(key) {
		return false
	}
	at, _ := schema.IDTime(logID)
	r.ids.Add(key, at.UnixMicro())
	return true
}

// addPast notes an id of the backfill, when it is one that an overlap could ask
// for: all the others would only take the place of those of the tail.
func (r *recent) addPast(logID string, now time.Time) {
	if at, ok := schema.IDTime(logID); ok && r.tooOld(at, now) {
		r.forget(at)
		return
	}
	r.add(logID)
}

func (r *recent) tooOld(at, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(at) > r.window
}

// forget says that ids up to a time may be unknown although they were pulled.
func (r *recent) forget(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.After(r.forgot) {
		r.forgot = at
	}
}

// since is the time after which all ids are known that were pulled.
func (r *recent) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forgot
}

// widen keeps ids of the past that were stored up to so long ago.
func (r *recent) widen(window time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.window = window
}
