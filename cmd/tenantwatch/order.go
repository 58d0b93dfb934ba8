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

// span is the time that a command is about.
type span struct {
	Since string `required:"" help:"From when on: a time ago such as 24h or 7d, or a time such as 2026-11-20T10:00:00Z."`
	Until string `help:"Up to when, in the same way. Default: now."`
}

// times reads the span.
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
		return since, until, usageError(fmt.Sprintf("--since %s is not before --until %s", since.Format(time.RFC3339), until.Format(time.RFC3339)))
	}
	return since, until, nil
}

// parseTime reads a time, or how long ago one was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if d, err := parseDuration(text); err == nil && d >= 0 {
		return now.Add(-d).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time ago such as 24h or 7d, or a time such as 2026-11-20 or 2026-11-20T10:00:00Z", text)
}

// checkTenant refuses a tenant that the settings do not have, where they have some.
// Without any, an instance has to run that knows its own.
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
	return usageError("no tenant: set AUTH0_DOMAIN as for run, or TENANTWATCH_DATA_DIR to the folder of a running instance")
}

func (c *Config) tenantNames() []string {
	var names []string
	for _, t := range c.Tenants {
		names = append(names, t.Name)
	}
	return names
}

// tenants are those that a command is about: the named one, or all of the settings,
// or the only one that is pulled. One that nobody pulls is refused: its order would
// wait for ever.
func (o *orders) tenants(ctx context.Context, c *Config, name string) ([]string, error) {
	names := c.tenantNames()
	if o.alone {
		if name != "" {
			names = []string{name} // the settings have it
		}
		return names, nil
	}

	found, err := tails(ctx, o.kafka, o.topic)
	if err != nil {
		return nil, err
	}
	pulled := slices.Sorted(maps.Keys(found))
	some := strings.Join(pulled, ", ")
	switch {
	case name != "":
		names = []string{name}
	case len(names) == 0 && len(pulled) > 1:
		return nil, usageError("which tenant? want --tenant with one of " + some)
	case len(names) == 0:
		names = pulled
	}
	if len(names) == 0 {
		return nil, usageError("no tenant is pulled yet")
	}
	for _, n := range names {
		if len(pulled) > 0 && !slices.Contains(pulled, n) {
			return nil, usageError(fmt.Sprintf("--tenant %s: nobody pulls that; there is %s", n, some))
		}
	}
	return names, nil
}

// tails are the newest checkpoints of the tenants' tails, by tenant.
func tails(ctx context.Context, k *kafka.Client, topic string) (map[string]checkpoint.Checkpoint, error) {
	all, err := checkpoint.ReadAll(ctx, func(ctx context.Context, yield func(schema.Record) error) error {
		return k.ReadAll(ctx, topic, yield)
	}, func(error) {}) // named where the pull starts
	found := map[string]checkpoint.Checkpoint{}
	for _, c := range all {
		if c.Chain == checkpoint.ChainTail {
			found[c.Tenant] = c
		}
	}
	return found, err
}

// checkNames refuses to pull a tenant under another name than it is kept under: all
// of it would come a second time.
func (c *Config) checkNames(kept map[string]checkpoint.Checkpoint) error {
	var f faults
	for i := range c.Tenants {
		t := &c.Tenants[i]
		if _, known := kept[t.Name]; known || t.baseURL == nil {
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(kept)) {
			if kept[other].Domain != t.baseURL.Host || slices.Contains(c.tenantNames(), other) {
				continue
			}
			f.add(t.nameVariable, "the events of %s are kept here under the name %s, not %s, and all would be pulled and kept a second time: "+
				"set %s=%s, or another TENANTWATCH_DATA_DIR (with servers of your own, another KAFKA_TOPIC_PREFIX and database)",
				t.baseURL.Host, other, t.Name, t.nameVariable, other)
		}
	}
	if len(f) > 0 {
		return f
	}
	return nil
}

// runningBrokers are the brokers that a command can ask: those of KAFKA_BROKERS,
// or the embedded one of a running instance; none when none runs.
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

// orders asks whoever leads a tenant for work on it, and follows that.
type orders struct {
	kafka  *kafka.Client
	topic  string
	log    *slog.Logger
	alone  bool                        // this process does the work itself
	update func(checkpoint.Checkpoint) // called by one goroutine at a time

	mu sync.Mutex // guards calls of update
}

// withOrders calls f with what gives orders to the running instance; when none
// runs, this process does the work itself meanwhile.
func withOrders(ctx context.Context, a *app, f func(context.Context, *orders) error) error {
	c, err := loadConfig(a.environ, need{})
	if err != nil {
		return err
	}
	log := newLogger(a.stderr, c)
	brokers, err := c.runningBrokers()
	if err != nil {
		return err
	}
	topic := schema.NewTopics(c.Kafka.Prefix).Checkpoints
	if len(brokers) > 0 {
		k := c.newKafka(brokers, log)
		defer k.Close()
		members, err := k.Members(ctx, c.group(groupPuller))
		if err != nil {
			return err
		}
		if members > 0 {
			// An embedded broker ends with its instance and comes back with it; of
			// others, one that was killed is still a member for a while.
			beside, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			if len(c.Kafka.Brokers) > 0 {
				go awaitNobody(beside, k, c.group(groupPuller), cancel)
			}
			err := f(beside, &orders{kafka: k, topic: topic, log: log})
			if err == nil || !errors.Is(context.Cause(beside), errNobody) {
				return err
			}
		} else if len(c.Kafka.Brokers) == 0 {
			return errors.New("another tenantwatch uses the data folder but does not pull; try again when it has started")
		}
	}
	if c, err = loadConfig(a.environ, need{tenant: true}); err != nil {
		return err
	}
	log.Info("no instance runs that pulls: this command does the work itself")
	p, err := startParts(ctx, c, []string{rolePull, roleWrite}, newConsole(io.Discard), log, nil, true)
	if err != nil {
		return err
	}
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.run(runCtx) }()
	orderCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if err := <-ended; err != nil {
			cancel(err)
		}
		close(ended)
	}()
	err = f(orderCtx, &orders{kafka: p.backend.kafka, topic: topic, log: log, alone: true})
	if err == nil { // else what was pulled would be written after the next start only
		err = p.backend.kafka.Drained(orderCtx, p.backend.topics.Events, c.group(groupWriter), writePatience)
	}
	stop()
	<-ended
	if cause := context.Cause(orderCtx); err != nil && cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}

// errNobody ends the wait for an instance: none is left.
var errNobody = errors.New("no instance pulls any more")

// nobodyFor is how long a group is empty before its work is done without it: an
// instance that is started anew is back sooner.
const nobodyFor = 10 * time.Second

// awaitNobody cancels with errNobody when a group has lost all its members.
func awaitNobody(ctx context.Context, k *kafka.Client, group string, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if members, err := k.Members(ctx, group); err != nil || members > 0 {
			seen = time.Now()
		} else if time.Since(seen) > nobodyFor {
			cancel(errNobody)
			return
		}
	}
}

// writePatience is how long a command that does the work itself waits until all of
// it is written.
const writePatience = time.Hour

// newOrderName is a name that no other order has.
func newOrderName() string {
	return fmt.Sprintf("%s-%04x", time.Now().UTC().Format("20060102T150405"), rand.IntN(1<<16))
}

// remindEvery is how often a command that waits says so.
const remindEvery = 30 * time.Second

// give asks for chains and waits until each, and all that was cut off from it, is
// done. It returns the last of each chain.
func (o *orders) give(ctx context.Context, list []checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	var all []checkpoint.Checkpoint
	g, ctx := errgroup.WithContext(ctx)
	for _, order := range list {
		g.Go(func() error {
			done, err := o.giveOne(ctx, order)
			o.mu.Lock()
			defer o.mu.Unlock()
			all = append(all, done...)
			return err
		})
	}
	return all, g.Wait()
}

// errDone ends the reading of a topic.
var errDone = errors.New("done")

func (o *orders) giveOne(ctx context.Context, order checkpoint.Checkpoint) ([]checkpoint.Checkpoint, error) {
	partition, err := o.kafka.PartitionOf(ctx, o.topic, []byte(order.Tenant))
	if err != nil {
		return nil, err
	}
	plan, isBackfill := pull.BackfillPlan(order.Chain)
	chains := map[string]checkpoint.Checkpoint{}
	heard := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go o.remind(ctx, order.Tenant, heard)
	ask := func() error {
		producer := o.kafka.NewProducerBy(o.topic, func(key []byte) []byte { return []byte(checkpoint.TenantOf(key)) })
		defer producer.Close()
		r, err := order.Record()
		if err != nil {
			return err
		}
		return producer.Produce(ctx, []schema.Record{r}, func(err error) { o.log.Warn("Kafka does not take the order; trying again", "err", err) })
	}
	err = o.kafka.Follow(ctx, o.topic, partition, ask, func(r schema.Record) error {
		c, err := checkpoint.Read(&r)
		if err != nil {
			return nil // no answer to us
		}
		if c.Tenant != order.Tenant || c.Requested || len(r.Value) == 0 {
			return nil
		}
		if p, ok := pull.BackfillPlan(c.Chain); c.Chain != order.Chain && !(isBackfill && ok && p == plan) {
			return nil
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		chains[c.Chain] = c
		o.mu.Lock()
		if o.update != nil {
			o.update(c)
		}
		o.mu.Unlock()
		if _, known := chains[order.Chain]; !known {
			return nil
		}
		for _, c := range chains {
			if !c.Done {
				return nil
			}
		}
		return errDone
	})
	if !errors.Is(err, errDone) {
		return nil, err
	}
	var list []checkpoint.Checkpoint
	for _, c := range chains {
		list = append(list, c)
	}
	return list, nil
}

// remind says that nothing is heard from whoever should do the work.
func (o *orders) remind(ctx context.Context, tenant string, heard <-chan struct{}) {
	timer := time.NewTimer(remindEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
		case <-timer.C:
			o.log.Warn("nothing is heard from the instance that pulls the tenant; still waiting, its log tells more", "tenant", tenant)
		}
		timer.Reset(remindEvery)
	}
}
