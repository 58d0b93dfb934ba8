package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/demo"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/logger"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/output"
)

type runCmd struct {
	Roles []string `default:"${roles}" help:"Roles of this process, also receive."`
}

// Help describes the roles.
func (*runCmd) Help() string {
	var list []string
	for _, r := range rolesForPeople() {
		list = append(list, fmt.Sprintf("%s (%s)", r.name, r.about))
	}
	return "Roles: " + strings.Join(list, ", ") + ". " +
		"Processes with the same Kafka and ClickHouse share the work of a role."
}

// Run watches the tenants until ctx ends.
func (r *runCmd) Run(ctx context.Context, a *app) error {
	required, err := r.needs()
	if err != nil {
		return err
	}
	cfg, err := config.Load(a.environ, required)
	if err != nil {
		return err
	}

	// A role that this process lacks would need another process, which cannot reach the embedded engines.
	lacksRole := func(name string) bool { return !slices.Contains(r.Roles, name) }
	if cfg.NeedsOneProcess() && slices.ContainsFunc(defaultRoles(), lacksRole) {
		return usageError("--roles needs KAFKA_BROKERS and CLICKHOUSE_DSN: " +
			"the embedded engines serve one process only")
	}

	// The simulated tenant's events must not be mixed with a real one's.
	if _, err := os.Stat(filepath.Join(cfg.DataDir, demo.File)); err == nil {
		return usageError(fmt.Sprintf("%s contains the demo's data: "+
			"set TENANTWATCH_DATA_DIR to another folder, or remove it", cfg.DataDir))
	}

	out := output.NewConsole(a.stdout)
	p, err := startPipeline(ctx, cfg, out, logger.New(out.LogWriter(a.stderr), cfg), setup{roles: r.Roles})
	if err != nil {
		return err
	}
	p.printAddresses(out)
	return p.run(ctx)
}

// needs returns the settings that the roles require. A role that there is not is refused.
func (r *runCmd) needs() (required config.Need, err error) {
	known := map[string]role{}
	var names []string
	for _, each := range rolesForPeople() {
		known[each.name] = each
		names = append(names, each.name)
	}

	for _, name := range r.Roles {
		each, ok := known[name]
		if !ok {
			return required, usageError(fmt.Sprintf("--roles: unknown role %q; want some of %s",
				name, strings.Join(names, ", ")))
		}
		required.Tenant = required.Tenant || each.needs.Tenant
		required.Receive = required.Receive || each.needs.Receive
	}
	return required, nil
}
