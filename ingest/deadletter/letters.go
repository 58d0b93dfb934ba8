package deadletter

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Letters are the dead letters of a Kafka.
type Letters struct {
	kafka  *kafka.Client
	topics schema.Topics
	log    *slog.Logger
}

// New returns the dead letters in the topics of a Kafka.
func New(client *kafka.Client, topics schema.Topics, log *slog.Logger) *Letters {
	return &Letters{kafka: client, topics: topics, log: log}
}

// Read returns each dead letter once, oldest first. Those that were retried are left out, unless they have
// become dead letters again.
func (l *Letters) Read(ctx context.Context) ([]schema.DeadLetter, error) {
	type key struct{ tenant, id string }
	found := map[key]schema.DeadLetter{}
	err := l.kafka.ReadAll(ctx, l.topics.DeadLetter, func(r schema.Record) error {
		d := schema.DeadLetterOf(&r)
		k := key{d.Tenant, d.ID}
		// The topic holds a dead letter, then perhaps a note that it was retried, then perhaps the dead letter
		// again.
		if _, known := found[k]; d.Retried {
			delete(found, k)
		} else if !known {
			found[k] = d
		}
		return nil
	})
	if err != nil {
		return nil, err
	}

	// The order of the map is random: sort by time, and by id for those of the same time.
	list := slices.Collect(maps.Values(found))
	slices.SortFunc(list, func(a, b schema.DeadLetter) int {
		return cmp.Or(a.FetchedAt.Compare(b.FetchedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Retry produces dead letters as events, and then a note that each was retried.
func (l *Letters) Retry(ctx context.Context, list []schema.DeadLetter) error {
	if len(list) == 0 {
		return errors.New("there are no dead letters")
	}

	var events, notes []schema.Record
	for i := range list {
		d := &list[i]
		plain := schema.Event{Tenant: d.Tenant, Source: schema.SourceRepair, FetchedAt: time.Now(), Raw: d.Raw}
		event := plain
		if event.Identify() != nil { // it may have set some fields before it failed
			event = plain
		}
		events = append(events, event.Record())
		notes = append(notes, d.RetriedRecord())
	}

	if err := l.produce(ctx, l.topics.Events, events); err != nil {
		return err
	}
	// If we stop here, the dead letters are still listed, and a second retry does no harm.
	return l.produce(ctx, l.topics.DeadLetter, notes)
}

func (l *Letters) produce(ctx context.Context, topic string, records []schema.Record) error {
	producer := l.kafka.NewProducer(topic)
	err := producer.Produce(ctx, records, func(err error) {
		l.log.Warn("produce dead letters failed; retrying", "err", err)
	})
	return errors.Join(err, producer.Close())
}

// Follow calls yield with the tenant of each new dead letter until ctx ends.
func (l *Letters) Follow(ctx context.Context, yield func(tenant string)) error {
	ready := func() error { return nil }
	return l.kafka.Follow(ctx, l.topics.DeadLetter, 0, ready, func(r schema.Record) error {
		if letter := schema.DeadLetterOf(&r); !letter.Retried {
			yield(letter.Tenant)
		}
		return nil
	})
}

// WithID returns the dead letters of a list whose ids start with a text; none for an empty one.
func WithID(list []schema.DeadLetter, beginning string) []schema.DeadLetter {
	var found []schema.DeadLetter
	for _, d := range list {
		if beginning != "" && strings.HasPrefix(d.ID, beginning) {
			found = append(found, d)
		}
	}
	return found
}
