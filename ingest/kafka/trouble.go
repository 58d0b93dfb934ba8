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

// progress is how a partition, or a membership of a group, does. Its methods may be
// called at once.
type progress struct {
	mu       sync.Mutex
	waiting  time.Time // since when there is work and nothing was committed; zero without work
	failing  time.Time // since when it fails; zero while it does not
	reason   string    // why it fails
	fetched  int64     // offset after the last record that was fetched
	notified time.Time // when the log last had a line about it
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

// commit notes that all below next are done with.
func (p *progress) commit(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
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

// due reports whether the log should have a line about it: once a minute.
func (p *progress) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.notified) < sayAgain {
		return false
	}
	p.notified = time.Now()
	return true
}

// trouble is what is wrong, empty when nothing is. commits says whether a commit is to
// be expected of what was fetched.
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

// Trouble is why a consumer group of this process does not do its work: it cannot be
// joined, a partition cannot be read, or nothing was committed for a minute although
// records are there; the last only of a group that commits. It is empty while all is well.
func (c *Client) Trouble(group string, commits bool) string {
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
