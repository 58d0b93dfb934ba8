package kafka

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// stalledAfter is how long records may wait without a commit.
	stalledAfter = time.Minute
	// failingAfter is how long reading or joining may fail.
	failingAfter = 10 * time.Second
)

// progress is the state of a producer, a partition, or a membership of a group. Its methods
// may be called concurrently.
type progress struct {
	mu       sync.Mutex // guards the fields below
	waiting  time.Time  // since when there are records and no commit; zero without records
	failing  time.Time  // since when it fails; zero while it succeeds
	reason   string     // why it fails
	fetched  int64      // offset after the last record that was fetched
	loggedAt time.Time
}

// fetch notes that a record was fetched.
func (p *progress) fetch(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.IsZero() {
		p.waiting = time.Now()
	}
	p.fetched = offset + 1
	p.failing, p.reason = time.Time{}, ""
}

// commit notes that all records below next are committed.
func (p *progress) commit(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()

	// If more records were fetched, the wait for the next commit starts now.
	p.waiting = time.Time{}
	if next < p.fetched {
		p.waiting = time.Now()
	}
}

func (p *progress) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failing.IsZero() {
		p.failing = time.Now()
	}
	p.reason = err.Error()
}

func (p *progress) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.failing.IsZero()
}

func (p *progress) succeed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing, p.reason = time.Time{}, ""
}

// due reports whether a failure must be logged: at first, and then once a minute.
func (p *progress) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.loggedAt) < logEvery {
		return false
	}
	p.loggedAt = time.Now()
	return true
}

// trouble returns what is wrong, or an empty text. commits is set if fetched records must
// be committed.
func (p *progress) trouble(commits bool) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.failing.IsZero() && time.Since(p.failing) > failingAfter {
		return fmt.Sprintf("fails for %s: %s", time.Since(p.failing).Round(time.Second), p.reason)
	}

	if commits && !p.waiting.IsZero() && time.Since(p.waiting) > stalledAfter {
		return fmt.Sprintf("no progress for %s at offset %d", time.Since(p.waiting).Round(time.Second), p.fetched)
	}
	return ""
}

// Trouble returns why a consumer group of this process does not do its work, or an empty
// text if it does: the group cannot be joined, a partition cannot be read, or nothing was
// committed for a minute although there are records. The last is only checked if commits is
// set, for a group that commits.
func (c *Client) Trouble(group string, commits bool) string {
	// This process need not be a member.
	c.mu.Lock()
	m := c.groups[group]
	c.mu.Unlock()
	if m == nil {
		return ""
	}

	var found []string
	if text := m.state.trouble(false); text != "" {
		found = append(found, "group "+group+" "+text)
	}

	// Sort the partitions, so that the text does not change at random.
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.parts {
		if text := p.state.trouble(commits); text != "" {
			found = append(found, fmt.Sprintf("partition %d of %s: %s", id, p.topic, text))
		}
	}
	slices.Sort(found)
	return strings.Join(found, "; ")
}
