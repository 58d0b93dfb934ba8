package ingest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/pace"
	"github.com/tenantwatch/tenantwatch/schema"
)

// saveEvery is the least interval of writes of checkpoints. The events since the last
// write are pulled again after a crash.
const saveEvery = 100 * time.Millisecond

// saver writes the checkpoints of chains to Kafka: of each chain its start, and then only
// the newest.
type saver struct {
	topic Producer
	log   *slog.Logger
	wrote func() // called after each write

	mu      sync.Mutex    // guards the fields below
	pending []Checkpoint  // in the order of save
	some    chan struct{} // signals that checkpoints are pending; has room for one
	waiting []chan struct{}
}

func newSaver(topic Producer, log *slog.Logger, wrote func()) *saver {
	return &saver{topic: topic, log: log, wrote: wrote, some: make(chan struct{}, 1)}
}

// save queues checkpoints. Each is written in the order of the calls, unless a newer one
// of its chain replaces it before. The start of a chain is never replaced: another chain,
// queued after it, may end where this one starts.
func (s *saver) save(list ...Checkpoint) { s.add(nil, list) }

// saveNow queues checkpoints and waits until all that are queued are durable.
func (s *saver) saveNow(ctx context.Context, list ...Checkpoint) error {
	done := make(chan struct{})
	s.add(done, list)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *saver) add(done chan struct{}, list []Checkpoint) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()

	// run closes done after the write of everything that is pending now.
	if done != nil {
		s.waiting = append(s.waiting, done)
	}

	for _, c := range list {
		c.UpdatedAt = now
		s.pending = slices.DeleteFunc(s.pending, func(old Checkpoint) bool {
			isStart := old.LogID == old.From
			return old.key() == c.key() && !isStart
		})
		s.pending = append(s.pending, c)
	}

	select {
	case s.some <- struct{}{}:
	default:
	}
}

// run writes checkpoints until ctx ends.
func (s *saver) run(ctx context.Context) error {
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

		if !pace.Sleep(ctx, saveEvery) {
			return ctx.Err()
		}
	}
}

// write makes checkpoints durable, in their order.
func (s *saver) write(ctx context.Context, list []Checkpoint) error {
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
