package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

type deadletterCmd struct {
	List  deadletterListCmd  `cmd:"" help:"List the events that could not be stored, with the reasons."`
	Show  deadletterShowCmd  `cmd:"" help:"Show a dead letter as it was received."`
	Retry deadletterRetryCmd `cmd:"" help:"Send dead letters to the writer again, after their cause is fixed."`
}

type deadletterListCmd struct {
	Tenant string `help:"Only dead letters of this tenant."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (one array) or csv (with a header)."`
}

// Run lists the dead letters, oldest first.
func (l *deadletterListCmd) Run(ctx context.Context, a *app) error {
	return withDeadLetters(ctx, a, func(_ *deadLetters, list []schema.DeadLetter) error {
		columns := []string{"id", "tenant", "source", "fetched_at", "bytes", "reason"}
		rows, err := newPrinter(a.stdout, l.Output, columns)
		if err != nil {
			return err
		}
		for _, d := range list {
			if l.Tenant != "" && d.Tenant != l.Tenant {
				continue
			}
			fetched := d.FetchedAt.UTC().Format(time.RFC3339)
			if err := rows.row([]any{d.ID, d.Tenant, string(d.Source), fetched, len(d.Raw), d.Reason}); err != nil {
				return err
			}
		}
		return rows.end()
	})
}

type deadletterShowCmd struct {
	ID  string `arg:"" help:"Id of the dead letter, or its unique beginning."`
	Raw bool   `help:"Print the received bytes only, unchanged."`
}

// Run prints one dead letter.
func (s *deadletterShowCmd) Run(ctx context.Context, a *app) error {
	return withDeadLetters(ctx, a, func(_ *deadLetters, list []schema.DeadLetter) error {
		d, err := findDeadLetter(list, s.ID)
		if err != nil {
			return err
		}
		if s.Raw {
			_, err := a.stdout.Write(d.Raw)
			return err
		}
		_, err = fmt.Fprintf(a.stdout,
			"id:         %s\ntenant:     %s\nsource:     %s\nfetched at: %s\nreason:     %s\nbytes:      %d\n\n%s\n",
			d.ID, d.Tenant, d.Source, d.FetchedAt.UTC().Format(time.RFC3339Nano), printable(d.Reason), len(d.Raw),
			printable(string(d.Raw)))
		return err
	})
}

type deadletterRetryCmd struct {
	IDs    []string `arg:"" optional:"" name:"id" help:"Ids of dead letters, or their unique beginnings."`
	All    bool     `help:"All dead letters."`
	Tenant string   `help:"With --all: only those of this tenant."`
}

// Run sends dead letters to the writer again. Those that it still cannot store become dead letters again.
func (r *deadletterRetryCmd) Run(ctx context.Context, a *app) error {
	if r.All == (len(r.IDs) > 0) {
		return usageError("want the ids of dead letters, or --all")
	}
	if r.Tenant != "" && !r.All {
		return usageError("--tenant has an effect with --all only")
	}

	return withDeadLetters(ctx, a, func(letters *deadLetters, list []schema.DeadLetter) error {
		var chosen []schema.DeadLetter
		// An unknown id is refused before anything is sent.
		for _, id := range r.IDs {
			d, err := findDeadLetter(list, id)
			if err != nil {
				return err
			}
			chosen = append(chosen, d)
		}
		for _, d := range list {
			if r.All && (r.Tenant == "" || d.Tenant == r.Tenant) {
				chosen = append(chosen, d)
			}
		}

		if err := letters.retry(ctx, chosen); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%d dead letters were sent to the writer again; "+
			"those that it still cannot store will be listed again\n", len(chosen))
		return err
	})
}

// findDeadLetter returns the dead letter whose id starts with a text.
func findDeadLetter(list []schema.DeadLetter, id string) (schema.DeadLetter, error) {
	var found []schema.DeadLetter
	for _, d := range list {
		if id != "" && strings.HasPrefix(d.ID, id) {
			found = append(found, d)
		}
	}

	// A beginning of an id must be unique.
	switch len(found) {
	case 0:
		return schema.DeadLetter{}, fmt.Errorf("no dead letter %s: run tenantwatch deadletter list to see all", id)
	case 1:
		return found[0], nil
	}
	return schema.DeadLetter{}, usageError(fmt.Sprintf("%d dead letters start with %s; give more of the id",
		len(found), id))
}

// deadLetters reads and retries the records of the topic deadletter.
type deadLetters struct {
	kafka  *kafka.Client
	topics schema.Topics
	log    *slog.Logger
}

// withDeadLetters calls f with the dead letters of the running instance. When none runs, it starts the
// embedded Kafka for the time of the call.
func withDeadLetters(ctx context.Context, a *app, f func(*deadLetters, []schema.DeadLetter) error) error {
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}

	brokers, err := c.runningBrokers()
	if err != nil {
		return err
	}
	if len(brokers) == 0 {
		dir := filepath.Join(c.DataDir, kafkaDir)
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("there is no data in %s: "+
				"set TENANTWATCH_DATA_DIR to the folder of the instance, or KAFKA_BROKERS", c.DataDir)
		}

		// Its log would only disturb the output.
		broker, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer broker.Close()
		brokers = broker.Addrs()
	}

	// From here on it makes no difference whose broker it is.
	log := newLogger(a.stderr, c)
	client := c.newKafka(brokers, log)
	defer client.Close()
	letters := &deadLetters{kafka: client, topics: schema.NewTopics(c.Kafka.Prefix), log: log}
	list, err := letters.read(ctx)
	if err != nil {
		return err
	}
	return f(letters, list)
}

// read returns each dead letter once, oldest first. Those that were retried are left out, unless they have
// become dead letters again.
func (l *deadLetters) read(ctx context.Context) ([]schema.DeadLetter, error) {
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

// retry produces dead letters as events, and then a note that each was retried.
func (l *deadLetters) retry(ctx context.Context, list []schema.DeadLetter) error {
	if len(list) == 0 {
		return errors.New("there are no dead letters")
	}

	var events, notes []schema.Record
	for i := range list {
		d := &list[i]
		plain := schema.Event{Tenant: d.Tenant, Source: schema.Repair, FetchedAt: time.Now(), Raw: d.Raw}
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

func (l *deadLetters) produce(ctx context.Context, topic string, records []schema.Record) error {
	producer := l.kafka.NewProducer(topic)
	err := producer.Produce(ctx, records, func(err error) {
		l.log.Warn("produce dead letters failed; retrying", "err", err)
	})
	return errors.Join(err, producer.Close())
}
