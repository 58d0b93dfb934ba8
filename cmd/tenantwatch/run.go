package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest"
	"github.com/tenantwatch/tenantwatch/ingest/auth0"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/scanner/probe"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The roles of a process.
const (
	rolePull   = "pull"
	roleWrite  = "write"
	roleScan   = "scan"
	roleProbe  = "probe"
	roleNotify = "notify"
	roleWeb    = "web"
)

var allRoles = []string{rolePull, roleWrite, roleScan, roleProbe, roleNotify, roleWeb}

type runCmd struct {
	Roles []string `default:"pull,write,scan,probe,notify,web" help:"What this process does; several processes with the same Kafka and ClickHouse share the work."`
}

// Run watches the tenant until ctx ends.
func (r *runCmd) Run(ctx context.Context, a *app) error {
	for _, role := range r.Roles {
		if !slices.Contains(allRoles, role) {
			return usageError(fmt.Sprintf("there is no role %q; want some of %s", role, strings.Join(allRoles, ", ")))
		}
	}
	c, err := loadConfig(a.environ, need{tenant: slices.Contains(r.Roles, rolePull) || slices.Contains(r.Roles, roleProbe)})
	if err != nil {
		return err
	}
	if c.needsOneProcess() && len(r.Roles) < len(allRoles) {
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
	pull      *ingest.Puller
	write     *ingest.Writer
	scan      *scanner.Stream
	probe     *probe.Probe
	notify    *alert.Notifier
	web       *web
}

// startPipeline starts the engines and makes the parts. After an error nothing
// is left behind. More sinks may be given for alerts.
func startPipeline(ctx context.Context, c *Config, roles []string, out *console, log *slog.Logger, sinks []alert.Sink) (_ *pipeline, err error) {
	p := &pipeline{cfg: c, log: log, reg: prometheus.NewRegistry(), out: out, roles: roles}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.has(roleWeb) { // a taken port is better known before the engines start
		if p.web, err = listenWeb(c.HTTPAddr); err != nil {
			return nil, err
		}
	}
	var set *rules.Set
	if p.has(roleScan) {
		set = p.loadRules()
	}
	if p.backend, err = startBackend(ctx, c, log); err != nil {
		return nil, err
	}
	topics := p.backend.topics
	if p.has(rolePull) {
		if err := p.makePuller(ctx); err != nil {
			return nil, err
		}
	}
	if p.has(roleWrite) {
		p.write = ingest.NewWriter(p.backend.store, p.producer(topics.DeadLetter), topics.Events, log.With("part", "write"), p.reg)
	}
	if p.has(roleScan) {
		p.scan = scanner.NewStream(set, scanner.Config{}, func(ctx context.Context, yield func(schema.Record) error) error {
			return p.backend.kafka.ReadAll(ctx, topics.Alerts, yield)
		}, p.producer(topics.Alerts), log.With("part", "scan"), p.reg)
	}
	if p.has(roleProbe) && c.probes() {
		p.probe = probe.New(probe.Config{Tenant: c.Tenant, BaseURL: c.baseURL, ClientID: c.Probe.ClientID, ClientSecret: string(c.Probe.ClientSecret),
			Username: c.Probe.Username, Password: string(c.Probe.Password), Realm: c.Probe.Realm, Audience: c.Probe.Audience,
			Interval: c.probeEvery, Log: log.With("part", "probe"), Registerer: p.reg}, p.producer(topics.Events))
	}
	if p.has(roleNotify) {
		sinks = append([]alert.Sink{alert.NewTerminal(out, out.terminal)}, sinks...)
		p.notify = alert.New(p.backend.conn, sinks, log.With("part", "notify"), p.reg)
	}
	return p, nil
}

func (p *pipeline) has(role string) bool { return slices.Contains(p.roles, role) }

// loadRules compiles the built-in rules and those of TENANTWATCH_RULES. What
// cannot be evaluated is said, and the rest runs.
func (p *pipeline) loadRules() *rules.Set {
	sources := []fs.FS{builtin.FS()}
	for _, dir := range p.cfg.Rules {
		sources = append(sources, os.DirFS(dir))
	}
	own := []string{} // set, but empty: no failure is our own
	if id := p.cfg.Probe.ClientID; id != "" {
		own = append(own, id)
	}
	set, report := rules.Load(rules.Vars{"probe_clients": own}, sources...)
	for _, d := range report.Documents {
		if d.Status == rules.Refused || d.Status == rules.Disabled {
			p.log.Warn("rule does not run", "status", d.Status, "file", d.File, "line", d.Line, "title", d.Title, "reason", d.Reason)
		}
	}
	p.log.Info("rules loaded", "loaded", report.Count(rules.Loaded), "disabled", report.Count(rules.Disabled), "refused", report.Count(rules.Refused))
	return set
}

// producer makes a producer that is closed with the pipeline.
func (p *pipeline) producer(topic string) *kafka.Producer {
	pr := p.backend.kafka.NewProducer(topic)
	p.producers = append(p.producers, pr)
	return pr
}

func (p *pipeline) makePuller(ctx context.Context) error {
	c := p.cfg
	tenant, err := auth0.New(auth0.Config{BaseURL: c.baseURL, Audience: c.Auth0.Audience, ClientID: c.Auth0.ClientID,
		ClientSecret: string(c.Auth0.ClientSecret), PrivateKey: string(c.Auth0.PrivateKey), UserAgent: "tenantwatch/" + version()})
	if err != nil {
		return err
	}
	checkpoints, err := ingest.ReadCheckpoints(ctx, func(ctx context.Context, yield func(schema.Record) error) error {
		return p.backend.kafka.ReadAll(ctx, p.backend.topics.Checkpoints, yield)
	})
	if err != nil {
		return err
	}
	at, _ := checkpoints.Of(c.Tenant, ingest.ChainTail)
	p.pull = ingest.NewPuller(ingest.PullerConfig{Tenant: c.Tenant, Backfill: c.backfill, Poll: c.poll,
		Log: p.log.With("part", "pull", "tenant", c.Tenant), Metrics: ingest.NewPullMetrics(p.reg)},
		tenant, ingest.NewPacer(c.rateShare), at, p.producer(p.backend.topics.Events), p.producer(p.backend.topics.Checkpoints))
	return nil
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
	group := func(name string) string { return p.cfg.Kafka.Prefix + name }
	if p.pull != nil {
		sources.start(fail, rolePull, p.pull.Run)
	}
	if p.probe != nil {
		sources.start(fail, roleProbe, p.probe.Run)
	}
	topics := p.backend.topics
	if p.write != nil {
		workers.start(fail, roleWrite, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Events, group("writer"), func(ctx context.Context, part *kafka.Partition) error { return p.write.Consume(ctx, part) })
		})
	}
	if p.scan != nil {
		workers.start(fail, roleScan, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Events, group("scanner"), func(ctx context.Context, part *kafka.Partition) error { return p.scan.Consume(ctx, part) })
		})
	}
	if p.notify != nil {
		workers.start(fail, roleNotify, func(ctx context.Context) error {
			return p.backend.kafka.Consume(ctx, topics.Alerts, group("notifier"), func(ctx context.Context, part *kafka.Partition) error { return p.notify.Consume(ctx, part) })
		})
	}
	if p.pull != nil {
		last.start(fail, "progress", p.showBackfill)
	}
	if p.web != nil {
		var login verdict
		if p.probe != nil {
			login = p.probe.Verdict
		}
		last.start(fail, roleWeb, func(ctx context.Context) error { return p.web.run(ctx, handler(p.reg, p.checks(), login)) })
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
	if p.web != nil {
		_ = p.web.listener.Close()
	}
}

// checks are the readiness of the roles: each does its work only with a Kafka
// that answers.
func (p *pipeline) checks() []check {
	var list []check
	add := func(role string, trouble func(ctx context.Context) string) {
		list = append(list, check{role, func(ctx context.Context) string {
			if err := p.backend.kafka.Ping(ctx); err != nil {
				return "Kafka does not answer: " + err.Error()
			}
			return trouble(ctx)
		}})
	}
	none := func(context.Context) string { return "" }
	if p.pull != nil {
		add(rolePull, func(context.Context) string { return p.pull.Status().Failing })
	}
	if p.write != nil {
		add(roleWrite, func(context.Context) string { return p.write.Status().Failing })
	}
	if p.scan != nil {
		add(roleScan, none)
	}
	if p.probe != nil {
		add(roleProbe, none)
	}
	if p.notify != nil {
		add(roleNotify, func(ctx context.Context) string {
			if err := p.backend.conn.Ping(ctx); err != nil {
				return "ClickHouse does not answer: " + err.Error()
			}
			return ""
		})
	}
	return list
}

// printAddresses says where things are.
func (p *pipeline) printAddresses(out *console) {
	if p.web != nil {
		out.printf("web:        http://%s (/metrics /livez /readyz /health/auth0)", p.web.addr())
	}
	if e := p.backend.engine; e != nil {
		a := e.access()
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
	return "TENANTWATCH_DATA_DIR=" + shellQuote(c.DataDir) + " "
}

// shellQuote makes one word of a text.
func shellQuote(s string) string {
	if !strings.ContainsAny(s, " '\"\\$`!*?[](){}<>|&;#~\t\n") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// showBackfill shows how far the backfill is, then says that it is done.
func (p *pipeline) showBackfill(ctx context.Context) error {
	status := p.pull.Status()
	if !status.Backfill {
		<-ctx.Done()
		return ctx.Err()
	}
	start, first := time.Now(), status.Total
	bar := p.out.startProgress(first)
	defer bar.done()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for status.Backfill {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		status = p.pull.Status()
		bar.show(share(status), status.Total)
	}
	bar.done()
	spent := time.Since(start)
	p.out.printf("backfill done: %s events in %s, %s events/s", thousands(status.Total), spent.Round(100*time.Millisecond),
		thousands(uint64(float64(status.Total-first)/max(spent.Seconds(), 0.001))))
	<-ctx.Done()
	return ctx.Err()
}

// share is how much of the time from the oldest event to the first start has
// been pulled.
func share(s ingest.PullStatus) float64 {
	whole := s.LiveFrom.Sub(s.Oldest)
	if s.Oldest.IsZero() || whole <= 0 {
		return 0
	}
	return min(max(float64(s.Position.Sub(s.Oldest))/float64(whole), 0), 1)
}
