package pull

// RecentIDs is how many ids the overlap can know.
const RecentIDs = recentIDs

// Overlap is how far back the overlap reaches.

// RoomIsFree reports whether no page is on its way.
func (p *Puller) RoomIsFree() bool {
	free := p.room.TryAcquire(bytesAhead)
	if free {
		p.room.Release(bytesAhead)
	}
	return free
}
