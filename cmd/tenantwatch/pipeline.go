package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/engines"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/web"
	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/pull"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/scanner/alert"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

// The consumer groups, after the prefix of the topics.
const (
	groupPuller   = "puller"
	groupWriter   = "writer"
	groupScanner  = "scanner"
	groupHistory  = "history" // of the topic alerts; see history
	groupNotifier = "notifier"
)

// pipeline is the parts of a process, wired but not running yet.
type pipeline struct {
	cfg     *config.Config
	log     *slog.Logger
	reg     *prometheus.Registry
	out     *output.Console
	setup   setup
	engines *engines.Engines

	parts     []part
	servers   []*web.Server
	addresses []string               // of the servers, for people
	logins    map[string]web.Verdict // of the probes, by tenant

	pulls  []*pull.Puller // one for each tenant; none without the role pull
	writer *write.Writer  // nil without the role write
}

// setup says what a pipeline does.
type setup struct {
	roles        []string
	sinks        []alert.Sink // receive alerts in addition to the configured ones
	requestsOnly bool         // tenants are pulled for requests only, without a tail
}

// startPipeline starts the engines and creates the parts. After an error nothing keeps running.
func startPipeline(
	ctx context.Context, c *config.Config, out *output.Console, log *slog.Logger, setup setup,
) (_ *pipeline, err error) {
	p := &pipeline{
		cfg: c, log: log, reg: prometheus.NewRegistry(), out: out, setup: setup, logins: map[string]web.Verdict{},
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// The roles at the end of the list listen: a port in use is better reported before rules are compiled, and
	// both before the engines start.
	var adds []func(context.Context) error
	for _, r := range slices.Backward(allRoles()) {
		if !slices.Contains(setup.roles, r.name) {
			continue
		}
		add, err := r.build(p)
		if err != nil {
			return nil, err
		}
		adds = append(adds, add)
	}

	// From here on close stops the engines.
	if p.engines, err = engines.Start(ctx, c, log, engines.NewMetrics(p.reg)); err != nil {
		return nil, err
	}
	for _, add := range slices.Backward(adds) {
		if err := add(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add adds a part, whose name is its role's unless it has another.
func (p *pipeline) add(each part) {
	if each.name == "" {
		each.name = each.role
	}
	p.parts = append(p.parts, each)
}

// listen opens a server that is closed with the pipeline. address formats the line that tells people where it
// is, from the host:port.
func (p *pipeline) listen(setting, addr string, address func(string) string) (*web.Server, error) {
	server, err := web.Listen(setting, addr)
	if err != nil {
		return nil, err
	}
	p.servers = append(p.servers, server)
	p.addresses = append(p.addresses, address(server.Addr()))
	return server, nil
}

// consume is what a member of a consumer group does with a partition until ctx ends.
type consume func(ctx context.Context, partition *kafka.Partition) error

// consumer returns the run function of a member of a consumer group.
func (p *pipeline) consumer(topic, group string, work consume) func(context.Context) error {
	return func(ctx context.Context) error {
		return p.engines.Kafka.Consume(ctx, topic, p.cfg.Group(group), work)
	}
}

// progresses returns the problem of a consumer group that makes no progress.
func (p *pipeline) progresses(group string) problem {
	return func(context.Context) string {
		// The pull has no offsets to commit: its progress is in checkpoints.
		return p.engines.Kafka.Trouble(p.cfg.Group(group), group != groupPuller)
	}
}

// run runs all parts until ctx ends or a part fails. Then it stops them in their order. Records that are in
// Kafka by then are processed after the next start.
func (p *pipeline) run(ctx context.Context) error {
	defer p.close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	var stages [stopOrders]*stage
	for when := range stages {
		stages[when] = newStage(ctx, fail)
		for _, each := range p.parts {
			if each.stops == order(when) {
				stages[when].start(each)
			}
		}
	}

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

// problem returns the reasons why roles of this process do not work; empty when all do.
func (p *pipeline) problem(ctx context.Context) string {
	var found []string
	for _, check := range p.checks() {
		if problem := check.Problem(ctx); problem != "" {
			found = append(found, check.Role+": "+problem)
		}
	}
	return strings.Join(found, "; ")
}

// close closes the producers, the engines and the listeners.
func (p *pipeline) close() {
	if p.engines != nil {
		p.engines.Close()
	}

	// A server that ran has closed its listener already; closing it again does no harm.
	for _, server := range p.servers {
		server.Close()
	}
}

// printAddresses prints how to reach the servers, the engines and the data.
func (p *pipeline) printAddresses(out *output.Console) {
	for _, address := range p.addresses {
		out.Printf("%s", address)
	}

	// The embedded engines are open to any client on this machine.
	if engine := p.engines.ClickHouse; engine != nil {
		access := engine.Access
		file := filepath.Join(p.cfg.DataDir, engines.ClickHouseDir, "access.json")
		out.Printf("ClickHouse: any client, native %s or http://%s/play, user %s, password in %s",
			access.TCP, access.HTTP, chlocal.Reader, file)
	}
	out.Printf("Kafka:      %s, topics %s*", strings.Join(p.engines.Brokers, ","), p.cfg.Kafka.Prefix)
	out.Printf("query:      %stenantwatch sql 'SELECT type, count() FROM events GROUP BY type ORDER BY 2 DESC'",
		dataDirPrefix(p.cfg))
}

// dataDirPrefix returns the shell assignment with which a command finds the data of c.
func dataDirPrefix(c *config.Config) string {
	if c.ClickHouse.DSN != "" {
		return ""
	}
	return "TENANTWATCH_DATA_DIR=" + schema.ShellQuote(c.DataDir) + " "
}
