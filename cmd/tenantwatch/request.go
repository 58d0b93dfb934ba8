package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/logger"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/lead"
	"github.com/tenantwatch/tenantwatch/schema"
)

// tenantFlag is the flag for the tenant of a request.
type tenantFlag struct {
	Tenant string `help:"Name of the tenant. Default: all in the settings, or the only one that is pulled."`
}

// check refuses a tenant that is not among those of the settings. Without any in the settings, an instance must
// be running that knows its own.
func (t *tenantFlag) check(c *config.Config) error {
	names := c.TenantNames()
	if len(names) > 0 {
		if t.Tenant != "" && !slices.Contains(names, t.Tenant) {
			return usageError(fmt.Sprintf("--tenant %s: the settings have %s", t.Tenant, strings.Join(names, ", ")))
		}
		return nil
	}

	if brokers, err := engines.RunningBrokers(c); err != nil || len(brokers) > 0 {
		return err
	}
	return usageError("no tenant: set AUTH0_DOMAIN as for run, " +
		"or TENANTWATCH_DATA_DIR to the folder of a running instance")
}

// choose returns the tenants that a command applies to: the named one, or all of the settings, or the only one
// that is pulled. A tenant that no instance pulls is refused: its request would wait forever.
func (t *tenantFlag) choose(ctx context.Context, c *config.Config, q *requests) ([]string, error) {
	names := c.TenantNames()
	if q.alone {
		if t.Tenant != "" {
			names = []string{t.Tenant} // check has found it in the settings
		}
		return names, nil
	}

	// A running instance may pull other tenants than those of our settings, which may name none.
	pulled, err := q.Pulled(ctx)
	if err != nil {
		return nil, err
	}
	choices := strings.Join(pulled, ", ")
	switch {
	case t.Tenant != "":
		names = []string{t.Tenant}
	case len(names) == 0 && len(pulled) > 1:
		return nil, usageError("several tenants are pulled: choose one with --tenant: " + choices)
	case len(names) == 0:
		names = pulled
	}
	if len(names) == 0 {
		return nil, usageError("no tenant is pulled yet")
	}

	// Without any tail the instance has just started, and will answer.
	for _, tenant := range names {
		if len(pulled) > 0 && !slices.Contains(pulled, tenant) {
			return nil, usageError(fmt.Sprintf("--tenant %s: no instance pulls it; pulled are %s", tenant, choices))
		}
	}
	return names, nil
}

// requests is the requests of a command.
type requests struct {
	*lead.Requests
	alone bool // this process serves them itself
}

// submit requests chains, each of which covers the time range, and shows their progress. It returns the last
// checkpoint of each chain and slice.
func (q *requests) submit(ctx context.Context, bar *output.Progress, list []checkpoint.Checkpoint,
	timeRange time.Duration) ([]checkpoint.Checkpoint, error) {
	defer bar.Done()
	all := lead.NewProgress(time.Duration(len(list)) * timeRange)
	q.OnAnswer(func(c checkpoint.Checkpoint) {
		events, share := all.Add(c)
		bar.Show(output.State{Done: events, Share: share}, 0)
	})
	return q.Submit(ctx, list)
}

// withRequests calls f with the requests of the running instance and the tenants that the command applies to.
// When none runs, this process serves the requests itself while f runs.
func (t *tenantFlag) withRequests(
	ctx context.Context, a *app, f func(ctx context.Context, q *requests, tenants []string) error,
) error {
	c, err := a.settings()
	if err != nil {
		return err
	}
	if err := t.check(c); err != nil {
		return err
	}
	log := logger.New(a.stderr, c)

	// The settings name the tenants, if they name any; a running instance knows its own.
	withTenants := func(ctx context.Context, q *requests) error {
		tenants, err := t.choose(ctx, c, q)
		if err != nil {
			return err
		}
		return f(ctx, q, tenants)
	}

	// An instance that runs must serve the request: two that pull one tenant would share its rate limit.
	err = askInstance(ctx, c, log, withTenants)
	if !errors.Is(err, lead.ErrNoInstance) {
		return err
	}

	// Now the settings need a tenant with credentials.
	if c, err = config.Load(a.environ, config.Need{Tenant: true}); err != nil {
		return err
	}
	log.Info("no running instance pulls: this command does the work itself")
	return serveAlone(ctx, c, log, withTenants)
}

// askInstance calls f with the requests of the running instance. Its error is lead.ErrNoInstance when none runs
// or when the last one has gone.
func askInstance(
	ctx context.Context, c *config.Config, log *slog.Logger, f func(context.Context, *requests) error,
) error {
	brokers, err := engines.RunningBrokers(c)
	if err != nil {
		return err
	}
	if len(brokers) == 0 {
		return lead.ErrNoInstance
	}

	client := engines.NewKafka(c, brokers, log)
	defer client.Close()
	instances := &lead.Instances{
		Kafka: client, Topic: schema.NewTopics(c.Kafka.Prefix).Checkpoints, Group: c.Group(groupPuller),
		Embedded: len(c.Kafka.Brokers) == 0, Log: log,
	}
	return instances.Ask(ctx, func(ctx context.Context, found *lead.Requests) error {
		return f(ctx, &requests{Requests: found})
	})
}

// writeTimeout is how long a command that does the work itself waits until all events are written.
const writeTimeout = time.Hour

// serveAlone calls f while this process pulls and writes for its requests.
func serveAlone(
	ctx context.Context, c *config.Config, log *slog.Logger, f func(context.Context, *requests) error,
) error {
	parts := setup{roles: []string{rolePull, roleWrite}, requestsOnly: true}
	p, err := startPipeline(ctx, c, output.NewConsole(io.Discard), log, parts)
	if err != nil {
		return err
	}
	topics := p.engines.Topics

	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	waitCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// A pipeline that fails cancels the wait for its answers.
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.run(runCtx); err != nil {
			cancel(err)
		}
	}()

	err = f(waitCtx, &requests{lead.NewRequests(p.engines.Kafka, topics.Checkpoints, log), true})
	if err == nil {
		// If we stopped here, events would stay in Kafka until the next start.
		err = p.engines.Kafka.Drained(waitCtx, topics.Events, c.Group(groupWriter), writeTimeout)
	}
	stop()
	// The pipeline stops in order before the result is printed.
	<-ended

	// A failure of the pipeline is the cause of the error of f.
	if cause := context.Cause(waitCtx); err != nil && cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}
