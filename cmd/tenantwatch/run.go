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
	roleReceive = "receive" // not among the defaults: it needs a log stream that is set up in Auth0
)

// allRoles are the default roles.
var allRoles = []string{rolePull, roleWrite, roleScan, roleProbe, roleNotify, roleWeb}

type runCmd struct {
	Roles []string `default:"pull,write,scan,probe,notify,web" help:"Roles of this process, also receive."`
}

// Help describes the roles.
func (*runCmd) Help() string {
	return "Roles: pull (tenant to Kafka), write (Kafka to ClickHouse), scan (rules to alerts), " +
		"probe (synthetic login), notify (alerts to people), web (metrics and health), " +
		"receive (Auth0's log streams; not a default). " +
		"Processes with the same Kafka and ClickHouse share the work of a role."
}

// Run watches the tenants until ctx ends.
func (r *runCmd) Run(ctx context.Context, a *app) error {
	for _, role := range r.Roles {
		if role != roleReceive && !slices.Contains(allRoles, role) {
			return usageError(fmt.Sprintf("--roles: unknown role %q; want some of %s, %s",
				role, strings.Join(allRoles, ", "), roleReceive))
		}
	}

	cfg, err := loadConfig(a.environ, need{
		tenant:  slices.Contains(r.Roles, rolePull) || slices.Contains(r.Roles, roleProbe),
		receive: slices.Contains(r.Roles, roleReceive),
	})
	if err != nil {
		return err
	}

	// A role that this process lacks would need another process, which cannot reach the embedded engines.
	lacksRole := func(role string) bool { return !slices.Contains(r.Roles, role) }
	if cfg.needsOneProcess() && slices.ContainsFunc(allRoles, lacksRole) {
		return usageError("--roles needs KAFKA_BROKERS and CLICKHOUSE_DSN: " +
			"the embedded engines serve one process only")
	}

	// The simulated tenant's events must not be mixed with a real one's.
	if _, err := os.Stat(filepath.Join(cfg.DataDir, demoFile)); err == nil {
		return usageError(fmt.Sprintf("%s contains the demo's data: "+
			"set TENANTWATCH_DATA_DIR to another folder, or remove it", cfg.DataDir))
	}

	out := newConsole(a.stdout)
	p, err := startPipeline(ctx, cfg, out, newLogger(a.logOutput(out), cfg), setup{roles: r.Roles})
	if err != nil {
		return err
	}
	p.printAddresses(out)
	return p.run(ctx)
}

// needsOneProcess reports whether an engine is embedded, which serves one process only.
func (c *Config) needsOneProcess() bool {
	return len(c.Kafka.Brokers) == 0 || c.ClickHouse.DSN == ""
}

// pipeline is the parts of a process, wired but not running yet. A part is nil without its role.
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
	probes    []*probe.Probe // of the tenants with a synthetic login
	notify    *alert.Notifier
	web       *web
	receive   *web // the listener of Auth0's log streams
	receiver  http.Handler
}

// setup says what a pipeline does.
type setup struct {
	roles        []string
	sinks        []alert.Sink // receive alerts in addition to the configured ones
	requestsOnly bool         // tenants are pulled for requests only, without a tail
}

// startPipeline starts the engines and creates the parts. After an error nothing keeps running.
func startPipeline(
	ctx context.Context, c *Config, out *console, log *slog.Logger, setup setup,
) (_ *pipeline, err error) {
	p := &pipeline{cfg: c, log: log, reg: prometheus.NewRegistry(), out: out, roles: setup.roles}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// Listen first: a port in use is better reported before the engines start.
	if err := p.listen(); err != nil {
		return nil, err
	}

	var set *rules.Set
	if p.has(roleScan) {
		// Rules are compiled before the engines start as well: their warnings come first in the log.
		p.rules = newRuleFiles(c, log.With("part", "rules"), p.reg)
		set = p.rules.load()
	}

	// From here on close stops the engines.
	if p.backend, err = startBackend(ctx, c, log, p.reg); err != nil {
		return nil, err
	}
	if p.has(rolePull) {
		if err := p.makePullers(ctx, setup.requestsOnly); err != nil {
			return nil, err
		}
	}
	if p.has(roleWrite) {
		deadLetters := p.producer(p.backend.topics.DeadLetter)
		p.write = write.NewWriter(p.backend.store, deadLetters, log.With("part", "write"), p.reg)
		p.write.KeepFirstDates(write.NewStoredDates(p.backend.conn))
	}
	if p.has(roleScan) {
		p.makeScanners(set)
	}
	if p.has(roleProbe) {
		p.makeProbes()
	}
	if p.has(roleReceive) {
		p.makeReceiver()
	}
	if p.has(roleNotify) {
		sinks := append([]alert.Sink{alert.NewTerminal(out, out.terminal)}, setup.sinks...)
		p.notify = alert.New(p.backend.conn, sinks, log.With("part", "notify"), p.reg)
	}
	return p, nil
}

// listen opens the listeners of the roles that serve HTTP.
func (p *pipeline) listen() (err error) {
	if p.has(roleWeb) {
		if p.web, err = listenWeb("HTTP_ADDR", p.cfg.HTTPAddr); err != nil {
			return err
		}
	}
	if p.has(roleReceive) {
		if p.receive, err = listenWeb("RECEIVE_ADDR", p.cfg.Receive.Addr); err != nil {
			return err
		}
	}
	return nil
}

// makeScanners creates the engine for the stream, the one for long windows, and the health monitor.
func (p *pipeline) makeScanners(set *rules.Set) {
	topic := p.backend.topics.Alerts
	past := func(ctx context.Context, yield func(schema.Record) error) error {
		return p.backend.kafka.ReadAll(ctx, topic, yield)
	}
	// Both engines restore their open alerts from the topic.
	alerts := p.producer(topic)

	p.scan = scanner.NewStream(streamRules(set), scanner.Config{}, past, alerts, p.log.With("part", "scan"), p.reg)
	store := history.NewStore(p.backend.conn)
	p.history = history.NewLive(store, set, past, alerts, p.log.With("part", "history"), p.reg)
	p.health = p.makeHealth()
}

// streamRules returns the rules of a set that run on the stream. The others have long windows and run on
// ClickHouse.
func streamRules(set *rules.Set) *rules.Set {
	return set.Select(func(r *rules.Rule) bool { return !history.Long(set, r) })
}

// reload replaces the running rules.
func (p *pipeline) reload(set *rules.Set) {
	p.scan.Reload(streamRules(set))
	p.history.Reload(set)
}

// ruleVars returns the variables of rules that follow from the settings.
func (c *Config) ruleVars() rules.Vars {
	// Set even when empty: without a probe, no failed login is our own.
	clients := []string{}
	for _, probe := range append(c.probes(), c.Probe) {
		if id := probe.ClientID; id != "" && !slices.Contains(clients, id) {
			clients = append(clients, id)
		}
	}
	return rules.Vars{"probe_clients": clients}
}

// probes returns the settings of all tenants' synthetic logins.
func (c *Config) probes() (list []probeConfig) {
	for _, tenant := range c.Tenants {
		list = append(list, tenant.Probe)
	}
	return list
}

func (p *pipeline) has(role string) bool { return slices.Contains(p.roles, role) }

// producer returns a new producer, which is closed with the pipeline.
func (p *pipeline) producer(topic string) *kafka.Producer {
	return p.keep(p.backend.kafka.NewProducer(topic))
}

// keep closes a producer with the pipeline.
func (p *pipeline) keep(producer *kafka.Producer) *kafka.Producer {
	p.producers = append(p.producers, producer)
	return producer
}

func (p *pipeline) makeProbes() {
	metrics := probe.NewMetrics(p.reg)
	for _, tenant := range p.cfg.Tenants {
		login := &tenant.Probe
		if !login.enabled() {
			continue
		}
		cfg := probe.Config{
			Tenant: tenant.Name, BaseURL: tenant.baseURL, Interval: p.cfg.probeEvery,
			ClientID: login.ClientID, ClientSecret: string(login.ClientSecret), Realm: login.Realm,
			Username: login.Username, Password: string(login.Password), Audience: login.Audience,
			Log: p.log.With("part", "probe", "tenant", tenant.Name), Metrics: metrics,
		}
		p.probes = append(p.probes, probe.New(cfg, p.producer(p.backend.topics.Events)))
	}
}

func (p *pipeline) makeReceiver() {
	tokens := map[string]string{}
	for _, tenant := range p.cfg.Tenants {
		tokens[tenant.Name] = string(tenant.ReceiveToken)
	}
	cfg := logstream.Config{Tokens: tokens, Log: p.log.With("part", "receive"), Registerer: p.reg}
	p.receiver = logstream.New(cfg, p.producer(p.backend.topics.Events))
}

// run runs all parts until ctx ends or a part fails. Then it stops them in order: sources first, then the
// consumers of what the sources produced, then the web and the engines. Records that are in Kafka by then
// are processed after the next start.
func (p *pipeline) run(ctx context.Context) error {
	defer p.close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// The stages in the order in which they stop.
	stages := [3]*stage{newStage(ctx, fail), newStage(ctx, fail), newStage(ctx, fail)}
	p.startSources(stages[0])
	p.startConsumers(stages[1])
	p.startServices(stages[2])

	<-ctx.Done()
	// If a stage hangs here, a second signal ends the process, which loses nothing.
	for _, s := range stages {
		s.end()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// startSources starts the parts that produce events.
func (p *pipeline) startSources(s *stage) {
	if p.has(rolePull) {
		s.start(rolePull, p.consumer(p.backend.topics.Checkpoints, groupPuller, p.lead))
	}
	for _, prober := range p.probes {
		s.start(roleProbe, prober.Run)
	}
	if p.receive != nil {
		s.start(roleReceive, func(ctx context.Context) error { return p.receive.run(ctx, p.receiver) })
	}
}

// startConsumers starts the parts that process events and alerts.
func (p *pipeline) startConsumers(s *stage) {
	topics := p.backend.topics
	if p.write != nil {
		consume := func(ctx context.Context, part *kafka.Partition) error { return p.write.Consume(ctx, part) }
		s.start(roleWrite, p.consumer(topics.Events, groupWriter, consume))
	}
	if p.scan != nil {
		consume := func(ctx context.Context, part *kafka.Partition) error { return p.scan.Consume(ctx, part) }
		s.start(roleScan, p.consumer(topics.Events, groupScanner, consume))
		s.start("history", p.consumer(topics.Alerts, groupHistory, p.runHistory))
	}
	if p.notify != nil {
		consume := func(ctx context.Context, part *kafka.Partition) error { return p.notify.Consume(ctx, part) }
		s.start(roleNotify, p.consumer(topics.Alerts, groupNotifier, consume))
	}
}

// startServices starts what runs until the end: the reload of rules, the progress and the web.
func (p *pipeline) startServices(s *stage) {
	if p.scan != nil {
		s.start("rules", func(ctx context.Context) error { return p.rules.watch(ctx, p.reload) })
	}
	if p.has(rolePull) {
		s.start("progress", p.showBackfill)
	}
	if p.web != nil {
		s.start(roleWeb, func(ctx context.Context) error {
			return p.web.run(ctx, handler(p.reg, p.checks(), p.logins()))
		})
	}
}

// consumer returns the run function of a member of a consumer group.
func (p *pipeline) consumer(topic, group string,
	consume func(context.Context, *kafka.Partition) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return p.backend.kafka.Consume(ctx, topic, p.cfg.group(group), consume)
	}
}

// stage is parts that stop together.
type stage struct {
	ctx  context.Context
	stop context.CancelFunc
	fail context.CancelCauseFunc
	g    errgroup.Group
}

// newStage returns a stage that outlives the end of its parent, until it is stopped. A part that fails
// calls fail.
func newStage(parent context.Context, fail context.CancelCauseFunc) *stage {
	s := &stage{fail: fail}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(parent))
	return s
}

// start runs a part. A part that returns before the stage stops has failed.
func (s *stage) start(name string, run func(context.Context) error) {
	s.g.Go(func() error {
		// An error after the stop is its consequence.
		err := run(s.ctx)
		if s.ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("stopped unexpectedly")
		}
		s.fail(fmt.Errorf("%s: %w", name, err))
		return nil
	})
}

// end stops the parts and returns when they have ended.
func (s *stage) end() {
	s.stop()
	_ = s.g.Wait()
}

// closeGrace is how long producers may take to deliver the records in flight.
const closeGrace = 2 * time.Second

// close closes the producers, the engines and the listeners.
func (p *pipeline) close() {
	// Producers first: they need the broker, which may be embedded.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, producer := range p.producers {
			_ = producer.Close()
		}
	}()
	select {
	case <-done:
	case <-time.After(closeGrace): // a broker is away; records that it has not acknowledged are pulled again
	}

	if p.backend != nil {
		p.backend.close()
	}

	// A server that ran has closed its listener already; closing it again does no harm.
	for _, w := range []*web{p.web, p.receive} {
		if w != nil {
			_ = w.listener.Close()
		}
	}
}

// printAddresses prints how to reach the web, the engines and the data.
func (p *pipeline) printAddresses(out *console) {
	if p.web != nil {
		out.printf("web:        http://%s (/metrics /livez /readyz /health/auth0)", p.web.addr())
	}
	if p.receive != nil {
		out.printf("log stream: http://%s/logs/TENANT", p.receive.addr())
	}

	// The embedded engines are open to any client on this machine.
	if engine := p.backend.engine; engine != nil {
		access := engine.Access
		out.printf("ClickHouse: any client, native %s or http://%s/play, user %s, password in %s",
			access.TCP, access.HTTP, chlocal.Reader, filepath.Join(p.cfg.DataDir, clickhouseDir, "access.json"))
	}
	out.printf("Kafka:      %s, topics %s*", strings.Join(p.backend.brokers, ","), p.cfg.Kafka.Prefix)
	out.printf("query:      %stenantwatch sql 'SELECT type, count() FROM events GROUP BY type ORDER BY 2 DESC'",
		dataDirPrefix(p.cfg))
}

// dataDirPrefix returns the shell assignment with which a command finds the data of c.
func dataDirPrefix(c *Config) string {
	if c.ClickHouse.DSN != "" {
		return ""
	}
	return "TENANTWATCH_DATA_DIR=" + schema.ShellQuote(c.DataDir) + " "
}

// logins returns the verdicts of the probes, by tenant.
func (p *pipeline) logins() map[string]verdict {
	verdicts := map[string]verdict{}
	for _, prober := range p.probes {
		verdicts[prober.Tenant()] = prober.Verdict
	}
	return verdicts
}
