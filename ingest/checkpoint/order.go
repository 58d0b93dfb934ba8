package checkpoint

// Higher compares ids. Auth0's ids have the same length, so they are in the order of their
// text. An id of another length is only higher than an empty one.
func Higher(a, b string) bool {
	if len(a) != len(b) {
		return b == ""
	}
	return a > b
}

// EndsAt reports whether a cursor is at the end of the chain or after it. That is never true of ids
// of another kind: then the last page of the tenant is the end.
func (c *Checkpoint) EndsAt(logID string) bool {
	return len(logID) == len(c.Until) && logID >= c.Until
}
