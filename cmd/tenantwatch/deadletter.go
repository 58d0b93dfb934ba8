package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/logger"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/deadletter"
	"github.com/tenantwatch/tenantwatch/schema"
)

type deadletterCmd struct {
	List  deadletterListCmd  `cmd:"" help:"List the events that could not be stored, with the reasons."`
	Show  deadletterShowCmd  `cmd:"" help:"Show a dead letter as it was received."`
	Retry deadletterRetryCmd `cmd:"" help:"Send dead letters to the writer again, after their cause is fixed."`
}

type deadletterListCmd struct {
	Tenant string `help:"Only dead letters of this tenant."`
	output.Format
}

// Run lists the dead letters, oldest first.
func (l *deadletterListCmd) Run(ctx context.Context, a *app) error {
	return withDeadLetters(ctx, a, func(_ *deadletter.Letters, list []schema.DeadLetter) error {
		columns := []string{"id", "tenant", "source", "fetched_at", "bytes", "reason"}
		rows, err := l.Rows(a.stdout, columns...)
		if err != nil {
			return err
		}
		for _, d := range list {
			if l.Tenant != "" && d.Tenant != l.Tenant {
				continue
			}
			fetched := d.FetchedAt.UTC().Format(time.RFC3339)
			if err := rows.Row(d.ID, d.Tenant, string(d.Source), fetched, len(d.Raw), d.Reason); err != nil {
				return err
			}
		}
		return rows.End()
	})
}

type deadletterShowCmd struct {
	ID  string `arg:"" help:"Id of the dead letter, or its unique beginning."`
	Raw bool   `help:"Print the received bytes only, unchanged."`
}

// Run prints one dead letter.
func (s *deadletterShowCmd) Run(ctx context.Context, a *app) error {
	return withDeadLetters(ctx, a, func(_ *deadletter.Letters, list []schema.DeadLetter) error {
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
			d.ID, d.Tenant, d.Source, d.FetchedAt.UTC().Format(time.RFC3339Nano), output.Printable(d.Reason),
			len(d.Raw), output.Printable(string(d.Raw)))
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

	return withDeadLetters(ctx, a, func(letters *deadletter.Letters, list []schema.DeadLetter) error {
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

		if err := letters.Retry(ctx, chosen); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%d dead letters were sent to the writer again; "+
			"those that it still cannot store will be listed again\n", len(chosen))
		return err
	})
}

// findDeadLetter returns the dead letter whose id starts with a text.
func findDeadLetter(list []schema.DeadLetter, id string) (schema.DeadLetter, error) {
	// A beginning of an id must be unique.
	switch found := deadletter.WithID(list, id); len(found) {
	case 0:
		return schema.DeadLetter{}, fmt.Errorf("no dead letter %s: run tenantwatch deadletter list to see all", id)
	case 1:
		return found[0], nil
	default:
		return schema.DeadLetter{}, usageError(fmt.Sprintf("%d dead letters start with %s; give more of the id",
			len(found), id))
	}
}

// withDeadLetters calls f with the dead letters of the running instance. When none runs, it starts the
// embedded Kafka for the time of the call.
func withDeadLetters(
	ctx context.Context, a *app, f func(*deadletter.Letters, []schema.DeadLetter) error,
) error {
	c, err := a.settings()
	if err != nil {
		return err
	}
	log := logger.New(a.stderr, c)
	client, end, err := engines.OpenKafka(c, log)
	if err != nil {
		return err
	}
	defer end()

	letters := deadletter.New(client, schema.NewTopics(c.Kafka.Prefix), log)
	list, err := letters.Read(ctx)
	if err != nil {
		return err
	}
	return f(letters, list)
}
