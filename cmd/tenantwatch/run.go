package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/scanner/health"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/scanner/probe"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The roles of a process.
const (
	rolePull    = "pull"
	roleWrite   = "write"
	roleScan    = "scan"
	roleProbe   = "probe"
	roleNotify  = "notify"
	roleWeb     = "web"
	roleReceive = "receive" // not by default: it waits for somebody outside
)

var allRoles = []string{rolePull, roleWrite, roleScan, roleProbe, roleNotify, roleWeb}

type runCmd struct {
	Roles []string `default:"pull,write,scan,probe,notify,web" help:"What this process does, also receive (Auth0's log stream); several processes with the same Kafka and ClickHouse share the work."`
}

// Run watches the tenant until ctx ends.
func (r *runCmd) Run(ctx context.Context, a *app) error {
	for _, role := range r.Roles {
		if role != roleReceive && !slices.Contains(allRoles, role) {
			return usageError(fmt.Sprintf("there is no role %q; want some of %s, %s", role, strings.Join(allRoles, ", "), roleReceive))
		}
	}
	c, err := loadConfig(a.environ, need{tenant: slices.Contains(r.Roles, rolePull) || slices.Contains(r.Roles, roleProbe), receive: slices.Contains(r.Roles, roleReceive)})
	if err != nil {
		return err
	}
	if c.needsOneProcess() && slices.ContainsFunc(allRoles, func(role string) bool { return !slices.Contains(r.Roles, role) }) {
		return usageError("--roles needs KAFKA_BROKERS and CLICKHOUSE_DSN: the embedded engines are for one process")
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, demoFile)); err == nil {
		return usageError(fmt.Sprintf("%s has the demo's data: set TENANTWATCH_DATA_DIR to another folder, or remove it", c.DataDir))
	}
	out := newConsole(a.stdout)
	p, err := startPipeline(ctx, c, r.Roles, out, newLogger(a.logOutput(out), c), nil)
	if err != nil {
		return err
	}
	p.printAddresses(out)
	return p.run(ctx)
}

func (c *Config) needsOneProcess() bool {
	return len(c.Kafka.Brokers) == 0 || c.ClickHouse.DSN == ""
}

// pipeline is the parts of a process, started and wired, but not running yet.
type pipeline struct {
	cfg     *Config
	log     *slog.Logger
	backend *backend
	reg     *prometheus.Registry
	out     *console
	roles   []string

	producers []*kafka.Producer
	pulls     []*pull.Puller // one for each tenant
	write     *write.Writer
	scan      *scanner.Stream
	history   *history.Live
	health    *health.Monitor
	rules     *ruleFiles
	probes    []*probe.Probe // of the tenants that have a login
	notify    *alert.Notifier
	web       *web
	receive   *web // Auth0's log streams
	receiver  http.Handler
}

// startPipeline starts the engines and makes the parts. After an error nothing
// is left behind. More sinks may be given for alerts.
func startPipeline(ctx context.Context, c *Config, roles []string, out *console, log *slog.Logger, sinks []alert.Sink) (*pipeline, error) {
	return startParts(ctx, c, roles, out, log, sinks, false)
}

// startParts is startPipeline; with ordersOnly nothing is pulled but what is asked
// for.
func startParts(ctx context.Context, c *Config, roles []string, out *console, log *slog.Logger, sinks []alert.Sink, ordersOnly bool) (_ *pipeline, err error) {
	p := &pipeline{cfg: c, log: log, reg: prometheus.NewRegistry(), out: out, roles: roles}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.has(roleWeb) { // a taken port is better known before the engines start
		if p.web, err = listenWeb("HTTP_ADDR", c.HTTPAddr); err != nil {
			return nil, err
		}
	}
	if p.has(roleReceive) {
		if p.receive, err = listenWeb("RECEIVE_ADDR", c.Receive.Addr); err != nil {
			return nil, err
		}
	}
	var set *rules.Set
	if p.has(roleScan) {
		p.rules = newRuleFiles(c, log.With("part", "rules"), p.reg)
		set = p.rules.load()
	}
	if p.backend, err = startBackend(ctx, c, log, p.reg); err != nil {
		return nil, err
	}
	topics := p.backend.topics
	if p.has(rolePull) {
		kept, err := tails(ctx, p.backend.kafka, topics.Checkpoints)
		if err == nil {
			err = c.checkNames(kept)
		}
		if err != nil {
			return nil, err
		}
		if err := p.makePullers(ordersOnly); err != nil {
			return nil, err
		}
	}
	if p.has(roleWrite) {
		p.write = write.NewWriter(p.backend.store, p.producer(topics.DeadLetter), log.With("part", "write"), p.reg)
		p.write.KeepFirstDates(write.NewStoredDates(p.backend.conn))
	}
	if p.has(roleScan) {
		past := func(ctx context.Context, yield func(schema.Record) error) error {
			return p.backend.kafka.ReadAll(ctx, topics.Alerts, yield)
		}
		alerts := p.producer(topics.Alerts)
		p.scan = scanner.NewStream(streamed(set), scanner.Config{}, past, alerts, log.With("part", "scan"), p.reg)
		p.history = history.NewLive(history.NewStore(p.backend.conn), set, past, alerts, log.With("part", "history"), p.reg)
		p.health = p.makeHealth()
	}
	if p.has(roleProbe) {
		p.makeProbes()
	}
	if p.has(roleReceive) {
		tokens := map[string]string{}
		for _, t := range c.Tenants {
			tokens[t.Name] = string(t.ReceiveToken)
		}
		p.receiver = logstream.New(logstream.Config{Tokens: tokens, Log: log.With("part", "receive"), Registerer: p.reg}, p.producer(topics.Events))
	}
	if p.has(roleNotify) {
		sinks = append([]alert.Sink{alert.NewTerminal(out, out.terminal)}, sinks...)
		p.notify = alert.New(p.backend.conn, sinks, log.With("part", "notify"), p.reg)
	}
	return p, nil
}

// streamed are the rules of a set that run in the stream.
func streamed(set *rules.Set) *rules.Set {
	return set.Select(func(r *rules.Rule) bool { return !history.Long(set, r) })
}

// reload puts another set of rules in force.
func (p *pipeline) reload(set *rules.Set) {
	p.scan.Reload(streamed(set))
	p.history.Reload(set)
}

// ruleVars are the variables of rules that the settings give.
func (c *Config) ruleVars() rules.Vars {
	own := []string{} // set, but empty: no failure is our own
	if id := c.Probe.ClientID; id != "" {
		own = append(own, id)
	}
	return rules.Vars{"probe_clients": own}
}

func (p *pipeline) has(role string) bool { return slices.Contains(p.roles, role) }

// producer makes a producer that is closed with the pipeline.
func (p *pipeline) producer(topic string) *kafka.Producer {
	return p.keep(p.backend.kafka.NewProducer(topic))
}

func (p *pipeline) keep(pr *kafka.Producer) *kafka.Producer {
	p.producers = append(p.producers, pr)
	return pr
}

func (p *pipeline) makeProbes() {
	metrics := probe.NewMetrics(p.reg)
	for _, t := range p.cfg.Tenants {
		if !t.Probe.on() {
			continue
		}
		p.probes = append(p.probes, probe.New(probe.Config{Tenant: t.Name, BaseURL: t.baseURL, ClientID: t.Probe.ClientID, ClientSecret: string(t.Probe.ClientSecret),
			Username: t.Probe.Username, Password: string(t.Probe.Password), Realm: t.Probe.Realm, Audience: t.Probe.Audience,
			Interval: p.cfg.probeEvery, Log: p.log.With("part", "probe", "tenant", t.Name), Metrics: metrics}, p.producer(p.backend.topics.Events)))
	}
}

// run runs everything until ctx ends or a part fails, and then ends it in
// order: sources first, then those that work on what they brought, then the web
// and the engines. Whatever is still in Kafka is worked on after the next start.
func (p *pipeline) run(ctx context.Context) error {
	defer p.close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stages := [3]*stage{newStage(ctx), newStage(ctx), newStage(ctx)}
	sources, workers, last := stages[0], stages[1], stages[2]
	topics := p.backend.topics
	if p.has(rolePull) {
		sources.start(fail, rolePull, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Checkpoints, p.cfg.group(groupPuller), p.lead)
		})
	}
	for _, probe := range p.probes {
		sources.start(fail, roleProbe, probe.Run)
	}
	if p.receive != nil {
		sources.start(fail, roleReceive, func(ctx context.Context) error { return p.receive.run(ctx, p.receiver) })
	}
	if p.write != nil {
		workers.start(fail, roleWrite, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Events, p.cfg.group(groupWriter), func(ctx context.Context, part *kafka.Partition) error { return p.write.Consume(ctx, part) })
		})
	}
	if p.scan != nil {
		last.start(fail, "rules", func(ctx context.Context) error { return p.rules.watch(ctx, p.reload) })
		workers.start(fail, roleScan, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Events, p.cfg.group(groupScanner), func(ctx context.Context, part *kafka.Partition) error { return p.scan.Consume(ctx, part) })
		})
		workers.start(fail, "history", func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Alerts, p.cfg.group(groupHistory), p.runHistory)
		})
	}
	if p.notify != nil {
		workers.start(fail, roleNotify, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Alerts, p.cfg.group(groupNotifier), func(ctx context.Context, part *kafka.Partition) error { return p.notify.Consume(ctx, part) })
		})
	}
	if p.has(rolePull) {
		last.start(fail, "progress", p.showBackfill)
	}
	if p.web != nil {
		last.start(fail, roleWeb, func(ctx context.Context) error { return p.web.run(ctx, handler(p.reg, p.checks(), p.logins())) })
	}
	<-ctx.Done()
	for _, s := range stages {
		s.end()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stage is parts that end together.
type stage struct {
	ctx  context.Context
	stop context.CancelFunc
	g    errgroup.Group
}

func newStage(parent context.Context) *stage {
	s := &stage{}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(parent))
	return s
}

// start runs a part. One that ends before it is told to is a failure of all.
func (s *stage) start(fail context.CancelCauseFunc, name string, run func(context.Context) error) {
	s.g.Go(func() error {
		if err := run(s.ctx); s.ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			fail(fmt.Errorf("%s: %w", name, err))
		}
		return nil
	})
}

func (s *stage) end() {
	s.stop()
	_ = s.g.Wait()
}

// closeGrace is how long producers get to settle what is under way.
const closeGrace = 2 * time.Second

func (p *pipeline) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, pr := range p.producers {
			_ = pr.Close()
		}
	}()
	select {
	case <-done:
	case <-time.After(closeGrace): // a broker that is away; what it has not acked is pulled again
	}
	if p.backend != nil {
		p.backend.close()
	}
	for _, w := range []*web{p.web, p.receive} {
		if w != nil {
			_ = w.listener.Close()
		}
	}
}

// printAddresses says where things are.
func (p *pipeline) printAddresses(out *console) {
	if p.web != nil {
		out.printf("web:        http://%s (/metrics /livez /readyz /health/auth0)", p.web.addr())
	}
	if p.receive != nil {
		out.printf("log stream: http://%s/logs/TENANT", p.receive.addr())
	}
	if e := p.backend.engine; e != nil {
		a := e.Access
		out.printf("ClickHouse: any client, native %s or http://%s/play, user %s, password in %s",
			a.TCP, a.HTTP, chlocal.Reader, filepath.Join(p.cfg.DataDir, clickhouseDir, "access.json"))
	}
	out.printf("Kafka:      %s, topics %s*", strings.Join(p.backend.brokers, ","), p.cfg.Kafka.Prefix)
	out.printf("query:      %stenantwatch sql 'SELECT type, count() FROM events GROUP BY type ORDER BY 2 DESC'", dataDirPrefix(p.cfg))
}

// dataDirPrefix is what has to stand before a command that is to query the data
// of c.
func dataDirPrefix(c *Config) string {
	if c.ClickHouse.DSN != "" {
		return ""
	}
	return "TENANTWATCH_DATA_DIR=" + schema.ShellQuote(c.DataDir) + " "
}

// logins are the probes' verdicts by tenant.
func (p *pipeline) logins() map[string]verdict {
	found := map[string]verdict{}
	for _, probe := range p.probes {
		found[probe.Tenant()] = probe.Verdict
	}
	return found
}
