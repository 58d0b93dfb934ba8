package checkpoint

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// saveEvery is the least interval of writes of checkpoints. The events since the last
// write are pulled again after a crash.
const saveEvery = 100 * time.Millisecond

// Producer makes records durable in one topic.
type Producer interface {
	// Produce returns nil once every record is durable. It retries until ctx ends
	// and calls failed after each failed attempt. After an error, some records may
	// have been written.
	Produce(ctx context.Context, records []schema.Record, failed func(error)) error
}

// Saver writes the checkpoints of chains to Kafka: of each chain its start, and then only
// the newest.
type Saver struct {
	topic Producer
	log   *slog.Logger
	wrote func() // called after each write

	mu      sync.Mutex    // guards the fields below
	pending []Checkpoint  // in the order of Save
	some    chan struct{} // signals that checkpoints are pending; has room for one
	waiting []chan struct{}
}

// NewSaver returns a saver for the checkpoints topic. It calls wrote after each write.
func NewSaver(topic Producer, log *slog.Logger, wrote func()) *Saver {
	return &Saver{topic: topic, log: log, wrote: wrote, some: make(chan struct{}, 1)}
}

// Save queues checkpoints. Each is written in the order of the calls, unless a newer one
// of its chain replaces it before. The start of a chain is never replaced: another chain,
// queued after it, may end where this one starts.
func (s *Saver) Save(list ...Checkpoint) { s.add(nil, list) }

// SaveNow queues checkpoints and waits until all that are queued are durable.
func (s *Saver) SaveNow(ctx context.Context, list ...Checkpoint) error {
	done := make(chan struct{})
	s.add(done, list)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Saver) add(done chan struct{}, list []Checkpoint) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()

	// Run closes done after the write of everything that is pending now.
	if done != nil {
		s.waiting = append(s.waiting, done)
	}

	for _, c := range list {
		c.UpdatedAt = now
		s.pending = slices.DeleteFunc(s.pending, func(old Checkpoint) bool {
			isStart := old.LogID == old.From
			return old.Key() == c.Key() && !isStart
		})
		s.pending = append(s.pending, c)
	}

	select {
	case s.some <- struct{}{}:
	default:
	}
}

// Run writes checkpoints until ctx ends.
func (s *Saver) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.some:
		}

		s.mu.Lock()
		list, waiting := s.pending, s.waiting
		s.pending, s.waiting = nil, nil
		s.mu.Unlock()

		// If we stop here, the next start resumes at older checkpoints and pulls the events since
		// then again.
		if err := s.write(ctx, list); err != nil {
			return err
		}
		for _, done := range waiting {
			close(done)
		}
		s.wrote()

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(saveEvery):
		}
	}
}

// write makes checkpoints durable, in their order.
func (s *Saver) write(ctx context.Context, list []Checkpoint) error {
	var records []schema.Record
	for i := range list {
		r, err := list[i].Record()
		if err != nil {
			return err
		}
		records = append(records, r)
	}

	// Produce retries; log only the first failure.
	logged := false
	return s.topic.Produce(ctx, records, func(err error) {
		if !logged {
			logged = true
			s.log.Warn("save checkpoints failed; retrying", "err", err)
		}
	})
}
