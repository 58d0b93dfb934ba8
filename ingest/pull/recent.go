package pull

import (
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tenantwatch/tenantwatch/schema"
)

// recentIDs is the number of recent ids that are kept for the overlap: twenty minutes of
// the fastest tenant at its usual share. An id takes about 45 bytes. The overlap never
// reaches behind a forgotten id, since all events there would seem late.
const recentIDs = 200_000

// recent has the ids of the events that were pulled recently. Ids are kept as 128-bit
// hashes; a collision would cost an event, but is practically impossible.
type recent struct {
	mu     sync.Mutex    // guards the fields below
	window time.Duration // greatest age of an id of the backfill that is kept
	known  map[xxh3.Uint128]struct{}
	ring   []recentID // the known ids; once it is full, a new id replaces the oldest
	next   int        // index of the oldest id, once the ring is full
	forgot time.Time  // of the newest id that was removed, or not kept
}

type recentID struct {
	key xxh3.Uint128
	us  int64 // the time of the id, in microseconds since 1970
}

func newRecent(window time.Duration) *recent {
	return &recent{window: window, known: map[xxh3.Uint128]struct{}{}}
}

// add adds an id and reports whether it was unknown.
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

	// Replace the oldest id, and remember up to which time ids may be missing.
	oldest := r.ring[r.next]
	delete(r.known, oldest.key)
	if at := time.UnixMicro(oldest.us).UTC(); at.After(r.forgot) {
		r.forgot = at
	}
	r.ring[r.next] = id
	r.next = (r.next + 1) % recentIDs
	return true
}

// addPast adds an id of the backfill if the overlap may ask for it. Other ids would only
// displace those of the tail.
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

// forget notes that ids up to a time may be unknown although they were pulled.
func (r *recent) forget(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.After(r.forgot) {
		r.forgot = at
	}
}

// since returns the time after which all ids that were pulled are known.
func (r *recent) since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forgot
}
