package kafka

// Committed returns the offset of the first record that the group has not committed.
func (p *Partition) Committed() int64 { return p.next }

// SeekOffset positions Fetch at an offset.
func (p *Partition) SeekOffset(offset int64) error { return p.seekOffset(offset) }
