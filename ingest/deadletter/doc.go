// Package deadletter lists and retries dead letters: events that could not be stored. The topic deadletter holds
// each with its bytes and the reason, and a note when it was retried. Package write produces them.
package deadletter
