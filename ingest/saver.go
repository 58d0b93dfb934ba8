package ingest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// saveEvery is the least time between two writes of checkpoints. What was pulled
// since the last one is pulled again after a crash.
const saveEvery = 100 * time.Millisecond

// saver writes the chains' checkpoints, of each chain its beginning and then the
// newest only. If we die before one is written, the next start goes on from an
// older one and pulls again what was pulled since.
type saver struct {
	topic Producer
	log   *slog.Logger
	wrote func() // after each write

	mu      sync.Mutex    // guards what follows
	pending []Checkpoint  // in the order in which they were put
	some    chan struct{} // has room for one: there are some
	waiting []chan struct{}
}

func newSaver(topic Producer, log *slog.Logger, wrote func()) *saver {
	return &saver{topic: topic, log: log, wrote: wrote, some: make(chan struct{}, 1)}
}

// put has checkpoints written, each unless a newer one of its chain comes before
// that, in the order of their puts. A chain's beginning is written in any case and
// in its place: another chain, put after it, may end where this one begins.
func (s *saver) put(list ...Checkpoint) { s.add(nil, list) }

// settle puts and waits until all that was put is durable.
func (s *saver) settle(ctx context.Context, list ...Checkpoint) error {
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
	if done != nil {
		s.waiting = append(s.waiting, done)
	}
	for _, c := range list {
		c.UpdatedAt = now
		s.pending = slices.DeleteFunc(s.pending, func(old Checkpoint) bool { return old.key() == c.key() && old.LogID != old.From })
		s.pending = append(s.pending, c)
	}
	select {
	case s.some <- struct{}{}:
	default:
	}
}

// run writes until ctx ends.
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
		var records []schema.Record
		for i := range list {
			r, err := list[i].Record()
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		said := false
		err := s.topic.Produce(ctx, records, func(err error) {
			if !said {
				said = true
				s.log.Warn("checkpoints cannot be written; trying again", "err", err)
			}
		})
		if err != nil {
			return err
		}
		for _, done := range waiting {
			close(done)
		}
		s.wrote()
		if !sleep(ctx, saveEvery) {
			return ctx.Err()
		}
	}
}
