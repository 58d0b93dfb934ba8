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
	List  deadletterListCmd  `cmd:"" help:"List what could not be stored, with the reasons."`
	Show  deadletterShowCmd  `cmd:"" help:"Show one as it was received."`
	Retry deadletterRetryCmd `cmd:"" help:"Hand some to the writer again, after what refused them has been mended."`
}

type deadletterListCmd struct {
	Tenant string `help:"Only this tenant's."`
	Output string `enum:"table,json,csv" default:"table" help:"table, json (an array of objects) or csv (with a header)."`
}

// Run lists the dead letters, oldest first.
func (l *deadletterListCmd) Run(ctx context.Context, a *app) error {
	return withDeadLetters(ctx, a, func(_ *deadLetters, list []schema.DeadLetter) error {
		rows, err := newPrinter(a.stdout, l.Output, []string{"id", "tenant", "source", "fetched_at", "bytes", "reason"})
		if err != nil {
			return err
		}
		for _, d := range list {
			if l.Tenant != "" && d.Tenant != l.Tenant {
				continue
			}
			if err := rows.row([]any{d.ID, d.Tenant, string(d.Source), d.FetchedAt.UTC().Format(time.RFC3339), len(d.Raw), d.Reason}); err != nil {
				return err
			}
		}
		return rows.end()
	})
}

type deadletterShowCmd struct {
	ID  string `arg:"" help:"Its id, or enough of the beginning."`
	Raw bool   `help:"Only the bytes as received, to a file or another program."`
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
		_, err = fmt.Fprintf(a.stdout, "id:         %s\ntenant:     %s\nsource:     %s\nfetched at: %s\nreason:     %s\nbytes:      %d\n\n%s\n",
			d.ID, d.Tenant, d.Source, d.FetchedAt.UTC().Format(time.RFC3339Nano), printable(d.Reason), len(d.Raw), printable(string(d.Raw)))
		return err
	})
}

type deadletterRetryCmd struct {
	IDs    []string `arg:"" optional:"" name:"id" help:"Their ids, or enough of the beginnings."`
	All    bool     `help:"All of them."`
	Tenant string   `help:"With --all: only this tenant's."`
}

// Run hands dead letters to the writer again. What it still cannot store becomes
// a dead letter once more.
func (r *deadletterRetryCmd) Run(ctx context.Context, a *app) error {
	if r.All == (len(r.IDs) > 0) {
		return usageError("want the ids of some dead letters, or --all")
	}
	return withDeadLetters(ctx, a, func(letters *deadLetters, list []schema.DeadLetter) error {
		var some []schema.DeadLetter
		for _, id := range r.IDs {
			d, err := findDeadLetter(list, id)
			if err != nil {
				return err
			}
			some = append(some, d)
		}
		for _, d := range list {
			if r.All && (r.Tenant == "" || d.Tenant == r.Tenant) {
				some = append(some, d)
			}
		}
		if err := letters.retry(ctx, some); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%d dead letters were handed to the writer again; those that it still cannot store are listed anew\n", len(some))
		return err
	})
}

// findDeadLetter finds the one whose id begins so.
func findDeadLetter(list []schema.DeadLetter, id string) (schema.DeadLetter, error) {
	var found []schema.DeadLetter
	for _, d := range list {
		if id != "" && strings.HasPrefix(d.ID, id) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return schema.DeadLetter{}, fmt.Errorf("there is no dead letter %s: tenantwatch deadletter list has those that there are", id)
	case 1:
		return found[0], nil
	}
	return schema.DeadLetter{}, usageError(fmt.Sprintf("%d dead letters begin with %s; write more of the id", len(found), id))
}

// deadLetters is the deadletter topic.
type deadLetters struct {
	kafka  *kafka.Client
	topics schema.Topics
	log    *slog.Logger
}

// withDeadLetters reads the dead letters of the running instance, or of the
// embedded Kafka, which it starts when none runs.
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
			return fmt.Errorf("there is no data in %s: set TENANTWATCH_DATA_DIR to the folder of the instance, or KAFKA_BROKERS", c.DataDir)
		}
		broker, err := kafkalocal.Start(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer broker.Close()
		brokers = broker.Addrs()
	}
	log := newLogger(a.stderr, c)
	k := c.newKafka(brokers, log)
	defer k.Close()
	letters := &deadLetters{kafka: k, topics: schema.NewTopics(c.Kafka.Prefix), log: log}
	list, err := letters.read(ctx)
	if err != nil {
		return err
	}
	return f(letters, list)
}

// read returns each dead letter once, oldest first, without those that were
// handed to the writer again and have not come back.
func (l *deadLetters) read(ctx context.Context) ([]schema.DeadLetter, error) {
	type key struct{ tenant, id string }
	found := map[key]schema.DeadLetter{}
	err := l.kafka.ReadAll(ctx, l.topics.DeadLetter, func(r schema.Record) error {
		d := schema.DeadLetterOf(&r)
		k := key{d.Tenant, d.ID}
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
	list := slices.Collect(maps.Values(found))
	slices.SortFunc(list, func(x, y schema.DeadLetter) int {
		return cmp.Or(x.FetchedAt.Compare(y.FetchedAt), cmp.Compare(x.ID, y.ID))
	})
	return list, nil
}

// retry produces dead letters as events, then notes that it has. If we die in
// between, they are still listed, and a second retry does no harm.
func (l *deadLetters) retry(ctx context.Context, list []schema.DeadLetter) error {
	if len(list) == 0 {
		return errors.New("there are no dead letters")
	}
	var events, notes []schema.Record
	for i := range list {
		d := &list[i]
		e := schema.Event{Tenant: d.Tenant, Source: schema.Repair, FetchedAt: time.Now(), Raw: d.Raw}
		if e.Identify() != nil {
			e = schema.Event{Tenant: d.Tenant, Source: schema.Repair, FetchedAt: time.Now(), Raw: d.Raw}
		}
		events = append(events, e.Record())
		notes = append(notes, d.RetriedRecord())
	}
	for _, step := range []struct {
		topic   string
		records []schema.Record
	}{{l.topics.Events, events}, {l.topics.DeadLetter, notes}} {
		producer := l.kafka.NewProducer(step.topic)
		err := producer.Produce(ctx, step.records, func(err error) { l.log.Warn("Kafka does not take them; trying again", "err", err) })
		if err = errors.Join(err, producer.Close()); err != nil {
			return err
		}
	}
	return nil
}
