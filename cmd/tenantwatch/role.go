package main

import (
	"context"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/web"
)

// role is work that a process takes on. Processes with the same Kafka and ClickHouse share the work of a role.
type role struct {
	name  string
	about string // in the help

	needs config.Need // settings that it requires
	extra bool        // not among the defaults

	// build does what must come before the engines start, and returns what adds the parts after that.
	build func(*pipeline) (add func(context.Context) error, err error)
}

// The roles of a process.
const (
	rolePull    = "pull"
	roleWrite   = "write"
	roleScan    = "scan"
	roleReceive = "receive"
	roleProbe   = "probe"
	roleNotify  = "notify"
	roleWeb     = "web"
)

// allRoles is the only list of roles. Its order is that of the readiness.
func allRoles() []role {
	tenant, receive := config.Need{Tenant: true}, config.Need{Receive: true}
	return []role{
		{name: rolePull, about: "tenant to Kafka", needs: tenant, build: buildPull},
		{name: roleWrite, about: "Kafka to ClickHouse", build: buildWrite},
		{name: roleScan, about: "rules to alerts", build: buildScan},
		{name: roleReceive, about: "Auth0's log streams; not a default", needs: receive, extra: true,
			build: buildReceive},
		{name: roleProbe, about: "synthetic login", needs: tenant, build: buildProbe},
		{name: roleNotify, about: "alerts to people", build: buildNotify},
		{name: roleWeb, about: "metrics and health", build: buildWeb},
	}
}

// defaultRoles returns the names of the roles that run without --roles.
func defaultRoles() (names []string) {
	for _, r := range allRoles() {
		if !r.extra {
			names = append(names, r.name)
		}
	}
	return names
}

// rolesForPeople returns the roles with the defaults first.
func rolesForPeople() []role {
	var defaults, extras []role
	for _, r := range allRoles() {
		if r.extra {
			extras = append(extras, r)
		} else {
			defaults = append(defaults, r)
		}
	}
	return append(defaults, extras...)
}

// part is something that runs in a process. Roles add them.
type part struct {
	name  string // in errors
	role  string // the role that it belongs to
	stops order
	run   func(ctx context.Context) error // blocks until ctx ends; an earlier return ends the process

	// ready returns why the part does not do its work; empty when it does. nil if the part says nothing about
	// the readiness of its role.
	ready problem
}

// order is when a part stops, relative to the others.
type order int

// The order of a stop: sources first, then the consumers of what the sources produced, then what runs until the
// end.
const (
	stopsFirst  order = iota // produces events
	stopsSecond              // processes events and alerts
	stopsLast                // serves the others, such as the web
	stopOrders               // their number
)

// problem returns why something does not work; empty when it does.
type problem func(ctx context.Context) string

// works is the readiness of a part that needs no check beyond those of its role.
func works(context.Context) string { return "" }

// firstOf returns the first of several problems.
func firstOf(list ...problem) problem {
	return func(ctx context.Context) string {
		for _, each := range list {
			if found := each(ctx); found != "" {
				return found
			}
		}
		return ""
	}
}

// checks returns the readiness of the roles. A role is ready while its parts do their work: Kafka and
// ClickHouse answer, reads and writes do not fail, and there was progress within the last minute if there was
// work to do.
func (p *pipeline) checks() []web.Check {
	var list []web.Check
	for _, r := range allRoles() {
		// A full disk is the cause of many other problems, so it is reported first.
		problems := []problem{p.engines.DiskProblem, p.engines.KafkaProblem}
		reports := false
		for _, each := range p.parts {
			if each.role == r.name && each.ready != nil {
				problems, reports = append(problems, each.ready), true
			}
		}
		if reports {
			list = append(list, web.Check{Role: r.name, Problem: firstOf(problems...)})
		}
	}
	return list
}
