package ingest

import (
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// recentIDs is how many ids of recent events are kept for the overlap: twenty
// minutes of the fastest tenant at its usual share. An id takes some 45 bytes.
// The overlap does not reach beyond what is forgotten: all would seem late there.
const recentIDs = 200_000

// recent knows which recent events have been pulled. Ids are kept as 128-bit
// hashes: two that collide would cost an event, and never will.
type recent struct {
	mu     sync.Mutex    // guards what follows
	window time.Duration // ids of the past that come later than this are not kept
	known  map[xxh3.Uint128]struct{}
	ring   []recentID // those known; once it is full, a new one takes the place of the oldest
	next   int        // the oldest, once it is full
	forgot time.Time  // of the newest id that had to go, or was not kept
}

type recentID struct {
	key xxh3.Uint128
	us  int64 // the time of the id, since 1970
}

func newRecent(window time.Duration) *recent {
	return &recent{window: window, known: map[xxh3.Uint128]struct{}{}}
}

// add notes an id and reports whether it was unknown.
func (r *recent) add(logID string) bool {
	key := xxh3.HashString128(logID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.known[key]; known {
		return false
	}
	at, _ := schema.IDTime(logID)
	id := recentID{key, at.UnixMicro()}
	r.known[key] = struct{}{}
	if len(r.ring) < recentIDs {
		r.ring = append(r.ring, id)
		return true
	}
	oldest := r.ring[r.next]
	delete(r.known, oldest.key)
	if at := time.UnixMicro(oldest.us).UTC(); at.After(r.forgot) {
		r.forgot = at
	}
	r.ring[r.next] = id
	r.next = (r.next + 1) % recentIDs
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
