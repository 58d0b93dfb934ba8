package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/checkpoint"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/schema"
)

// span is the flags for a command's time range.
type span struct {
	Since string `required:"" help:"Start of the range: a duration ago (24h, 7d) or a time (2026-11-20T10:00:00Z)."`
	Until string `help:"End of the range, in the same form. Default: now."`
}

// times parses the range.
func (s *span) times(now time.Time) (since, until time.Time, err error) {
	until = now
	if since, err = parseTime(s.Since, now); err != nil {
		return since, until, usageError("--since: " + err.Error())
	}
	if s.Until != "" {
		if until, err = parseTime(s.Until, now); err != nil {
			return since, until, usageError("--until: " + err.Error())
		}
	}
	if !since.Before(until) {
		return since, until, usageError(fmt.Sprintf("--since %s is not before --until %s",
			since.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return since, until, nil
}

// parseTime parses a time, or a duration before now.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := parseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time ago such as 24h or 7d, "+
		"or a time such as 2026-11-20 or 2026-11-20T10:00:00Z", text)
}

// checkTenant refuses a tenant that is not among those of the settings. Without any in the settings, an
// instance must be running that knows its own.
func (c *Config) checkTenant(name string) error {
	names := c.tenantNames()
	if len(names) > 0 {
		if name != "" && !slices.Contains(names, name) {
			return usageError(fmt.Sprintf("--tenant %s: the settings have %s", name, strings.Join(names, ", ")))
		}
		return nil
	}

	if brokers, err := c.runningBrokers(); err != nil || len(brokers) > 0 {
		return err
	}
	return usageError("no tenant: set AUTH0_DOMAIN as for run, " +
		"or TENANTWATCH_DATA_DIR to the folder of a running instance")
}

func (c *Config) tenantNames() []string {
	names := []string{}
	for _, tenant := range c.Tenants {
		names = append(names, tenant.Name)
	}
	return names
}

// tenants returns the tenants that a command applies to: the named one, or all of the settings, or the only
// one that is pulled. A tenant that no instance pulls is refused: its request would wait forever.
func (q *requests) tenants(ctx context.Context, c *Config, name string) ([]string, error) {
	names := c.tenantNames()
	if q.alone {
		if name != "" {
			names = []string{name} // checkTenant has found it in the settings
		}
		return names, nil
	}

	// A running instance may pull other tenants than those of our settings, which may name none.
	found, err := tails(ctx, q.kafka, q.topic)
	if err != nil {
		return nil, err
	}
	// A tenant with a tail is pulled, or was pulled once.
	pulled := slices.Sorted(maps.Keys(found))
	choices := strings.Join(pulled, ", ")
	switch {
	case name != "":
		names = []string{name}
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

// tails returns the newest checkpoint of each tenant's tail. Damaged checkpoints are skipped: the pull logs
// them when it starts.
func tails(ctx context.Context, k *kafka.Client, topic string) (map[string]checkpoint.Checkpoint, error) {
	readAll := func(ctx context.Context, yield func(schema.Record) error) error {
		return k.ReadAll(ctx, topic, yield)
	}
	all, err := checkpoint.ReadAll(ctx, readAll, func(error) {})

	found := map[string]checkpoint.Checkpoint{}
	for _, chain := range all {
		if chain.Chain == checkpoint.ChainTail {
			found[chain.Tenant] = chain
		}
	}
	return found, err
}

// checkNames refuses to pull a tenant whose events are stored under another name: all of them would be pulled
// and stored again.
func (c *Config) checkNames(known map[string]checkpoint.Checkpoint) error {
	var wrong faults
	for i := range c.Tenants {
		tenant := &c.Tenants[i]
		if _, ok := known[tenant.Name]; ok || tenant.baseURL == nil {
			continue
		}
		domain := tenant.baseURL.Host
		for _, other := range slices.Sorted(maps.Keys(known)) {
			// A tenant that is still configured under its own name may share the domain.
			if known[other].Domain != domain || slices.Contains(c.tenantNames(), other) {
				continue
			}
			wrong.add(tenant.nameVariable, "the events of %s are stored under the name %s, not %s, "+
				"and would all be pulled and stored again: set %s=%s, or another TENANTWATCH_DATA_DIR "+
				"(with external servers, another KAFKA_TOPIC_PREFIX and database)",
				domain, other, tenant.Name, tenant.nameVariable, other)
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	return nil
}

// runningBrokers returns the brokers that a command can connect to: those of KAFKA_BROKERS, or the embedded
// one of a running instance. There are none when no instance runs.
func (c *Config) runningBrokers() ([]string, error) {
	if len(c.Kafka.Brokers) > 0 {
		return c.Kafka.Brokers, nil
	}
	addr, err := kafkalocal.Running(filepath.Join(c.DataDir, kafkaDir))
	if err != nil || addr == "" {
		return nil, err
	}
	return []string{addr}, nil
}

func (c *Config) newKafka(brokers []string, log *slog.Logger) *kafka.Client {
	return kafka.NewClient(kafka.Config{Brokers: brokers, TLS: c.kafkaTLS, SASL: c.kafkaSASL, Log: log})
}

// requests sends requests to the process that pulls a tenant, and follows their progress. A request is the
// first checkpoint of a chain, in the topic checkpoints; the answer is the later ones.
type requests struct {
	kafka  *kafka.Client
	topic  string
	log    *slog.Logger
	alone  bool                        // this process serves the requests itself
	update func(checkpoint.Checkpoint) // called for each answer, by one goroutine at a time

	mu sync.Mutex // guards calls of update
}

// withRequests calls f with the requests of the running instance. When none runs, this process serves the
// requests itself while f runs.
func withRequests(ctx context.Context, a *app, f func(context.Context, *requests) error) error {
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	log := newLogger(a.stderr, c)

	// An instance that runs must serve the request: two that pull one tenant would share its rate limit.
	err = c.askInstance(ctx, log, f)
	if !errors.Is(err, errNoInstance) {
		return err
	}

	// Now the settings need a tenant with credentials.
	if c, err = loadConfig(a.environ, need{tenant: true}); err != nil {
		return err
	}
	log.Info("no running instance pulls: this command does the work itself")
	return c.serveAlone(ctx, log, f)
}

// errNoInstance reports that no running instance pulls, or none any more.
var errNoInstance = errors.New("no instance pulls")

// askInstance calls f with the requests of the running instance. Its error is errNoInstance when none runs or
// when the last one has gone.
func (c *Config) askInstance(ctx context.Context, log *slog.Logger, f func(context.Context, *requests) error) error {
	brokers, err := c.runningBrokers()
	if err != nil {
		return err
	}
	if len(brokers) == 0 {
		return errNoInstance
	}

	client := c.newKafka(brokers, log)
	defer client.Close()
	group, external := c.group(groupPuller), len(c.Kafka.Brokers) > 0
	members, err := client.Members(ctx, group)
	if err != nil {
		return err
	}

	// The group is empty. An external Kafka runs without us; an embedded one belongs to a process that has the
	// data folder, so we cannot use it.
	if members == 0 && external {
		return errNoInstance
	}
	if members == 0 {
		return errors.New("another tenantwatch uses the data folder but does not pull; try again when it has started")
	}

	// An embedded broker ends with its instance and returns with it. With an external one, an instance that
	// was killed remains a member of the group for a while, so its absence shows later.
	waitCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if external {
		go watchGroup(waitCtx, client, group, cancel)
	}
	topic := schema.NewTopics(c.Kafka.Prefix).Checkpoints
	err = f(waitCtx, &requests{kafka: client, topic: topic, log: log})

	// The request may be half done. Serving it again duplicates no events.
	if err != nil && errors.Is(context.Cause(waitCtx), errNoInstance) {
		return errNoInstance
	}
	return err
}

// absenceTimeout is how long a group must be empty before its instances count as gone: one that restarts is
// back sooner.
const absenceTimeout = 10 * time.Second

// watchGroup cancels with errNoInstance when a group has lost all its members.
func watchGroup(ctx context.Context, k *kafka.Client, group string, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}

		members, err := k.Members(ctx, group)
		// A broker that does not answer says nothing about the group.
		if err != nil || members > 0 {
			seen = time.Now()
		} else if time.Since(seen) > absenceTimeout {
			cancel(errNoInstance)
			return
		}
	}
}

// writeTimeout is how long a command that does the work itself waits until all events are written.
const writeTimeout = time.Hour

// serveAlone calls f while this process pulls and writes for its requests.
func (c *Config) serveAlone(ctx context.Context, log *slog.Logger, f func(context.Context, *requests) error) error {
	parts := setup{roles: []string{rolePull, roleWrite}, requestsOnly: true}
	p, err := startPipeline(ctx, c, newConsole(io.Discard), log, parts)
	if err != nil {
		return err
	}
	topics := p.backend.topics

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

	err = f(waitCtx, &requests{kafka: p.backend.kafka, topic: topics.Checkpoints, log: log, alone: true})
	if err == nil {
		// If we stopped here, events would stay in Kafka until the next start.
		err = p.backend.kafka.Drained(waitCtx, topics.Events, c.group(groupWriter), writeTimeout)
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

// newRequestName returns a name that no other request has.
func newRequestName() string {
	return fmt.Sprintf("%s-%04x", time.Now().UTC().Format("20060102T150405"), rand.IntN(1<<16))
}

// remindInterval is how long a request is without an answer before that is logged.
const remindInterval = 30 * time.Second

// submit requests chains and waits until each is done, with all slices that were cut off from it. It returns
// the last checkpoint of each chain and slice.
func (q *requests) submit(ctx context.Context, list []checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	var all []checkpoint.Checkpoint
	g, ctx := errgroup.WithContext(ctx)
	for _, request := range list {
		g.Go(func() error {
			done, err := q.submitOne(ctx, request)
			q.mu.Lock()
			defer q.mu.Unlock()
			all = append(all, done...)
			return err
		})
	}
	return all, g.Wait()
}

// errDone ends the reading of a topic.
var errDone = errors.New("done")

func (q *requests) submitOne(ctx context.Context, request checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	partition, err := q.kafka.PartitionOf(ctx, q.topic, []byte(request.Tenant))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{}, 1)
	go q.remind(ctx, request.Tenant, answered)

	// The request is produced once the topic is followed, so that no answer is missed.
	chains := map[string]checkpoint.Checkpoint{}
	send := func() error { return q.send(ctx, request) }
	err = q.kafka.Follow(ctx, q.topic, partition, send, func(r schema.Record) error {
		answer, err := checkpoint.Read(&r)
		if err != nil || len(r.Value) == 0 || !answers(answer, request) {
			return nil
		}
		select {
		// Never block on the reminder, which is asleep most of the time.
		case answered <- struct{}{}:
		default:
		}

		chains[answer.Chain] = answer
		q.mu.Lock()
		if q.update != nil {
			q.update(answer)
		}
		q.mu.Unlock()

		// The requested chain answers before its slices are done.
		if _, known := chains[request.Chain]; !known {
			return nil
		}
		for _, chain := range chains {
			if !chain.Done {
				return nil
			}
		}
		return errDone
	})
	if !errors.Is(err, errDone) {
		return nil, err
	}
	return slices.Collect(maps.Values(chains)), nil
}

// answers reports whether a checkpoint is of the requested chain, or of a slice of the requested backfill.
func answers(answer, request checkpoint.Checkpoint) bool {
	if answer.Tenant != request.Tenant || answer.Requested {
		return false
	}
	if answer.Chain == request.Chain {
		return true
	}
	plan, isBackfill := pull.BackfillPlan(request.Chain)
	other, isSlice := pull.BackfillPlan(answer.Chain)
	return isBackfill && isSlice && other == plan
}

// send produces a request.
func (q *requests) send(ctx context.Context, request checkpoint.Checkpoint) error {
	record, err := request.Record()
	if err != nil {
		return err
	}
	byTenant := func(key []byte) []byte { return []byte(checkpoint.TenantOf(key)) }
	producer := q.kafka.NewProducerBy(q.topic, byTenant)
	defer producer.Close()
	return producer.Produce(ctx, []schema.Record{record}, func(err error) {
		q.log.Warn("produce request failed; retrying", "err", err)
	})
}

// remind logs when no answer has come for remindInterval.
func (q *requests) remind(ctx context.Context, tenant string, answered <-chan struct{}) {
	timer := time.NewTimer(remindInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
		case <-timer.C:
			q.log.Warn("no progress of the instance that pulls the tenant; still waiting, see its log",
				"tenant", tenant)
		}
		timer.Reset(remindInterval)
	}
}
