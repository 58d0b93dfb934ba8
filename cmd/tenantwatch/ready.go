package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// minDisk is the free space in bytes below which a disk counts as full: a segment of Kafka and a merge of
// ClickHouse no longer fit.
const minDisk = 64 << 20

// checks returns the readiness checks of the roles. A role is ready while it does its work: Kafka and
// ClickHouse answer, its reads and writes do not fail, and it has made progress within the last minute if
// there was work to do.
func (p *pipeline) checks() []check {
	var list []check
	add := func(role string, parts ...func(ctx context.Context) string) {
		// A full disk is the cause of many other problems, so it is reported first.
		parts = append([]func(context.Context) string{p.diskProblem, p.kafkaProblem}, parts...)
		list = append(list, check{role, func(ctx context.Context) string {
			for _, part := range parts {
				if problem := part(ctx); problem != "" {
					return problem
				}
			}
			return ""
		}})
	}

	// The pull has no offsets to commit: its progress is in checkpoints.
	group := func(suffix string) func(context.Context) string {
		return func(context.Context) string {
			return p.backend.kafka.Trouble(p.cfg.group(suffix), suffix != groupPuller)
		}
	}

	if p.has(rolePull) {
		add(rolePull, func(context.Context) string { return p.failingPull() }, group(groupPuller))
	}
	if p.write != nil {
		add(roleWrite, func(context.Context) string { return p.write.Status().Failing }, group(groupWriter))
	}
	if p.scan != nil {
		add(roleScan, group(groupScanner), group(groupHistory))
	}
	if p.receive != nil {
		add(roleReceive)
	}
	if len(p.probes) > 0 {
		add(roleProbe)
	}
	if p.notify != nil {
		add(roleNotify, p.clickhouseProblem, group(groupNotifier))
	}
	return list
}

// problem returns the reasons why roles of this process do not work; empty when all do.
func (p *pipeline) problem(ctx context.Context) string {
	var found []string
	for _, c := range p.checks() {
		if problem := c.problem(ctx); problem != "" {
			found = append(found, c.role+": "+problem)
		}
	}
	return strings.Join(found, "; ")
}

// kafkaProblem returns why Kafka cannot be used.
func (p *pipeline) kafkaProblem(ctx context.Context) string {
	if err := p.backend.kafka.Ping(ctx); err != nil {
		return "Kafka does not answer: " + err.Error()
	}

	// The brokers answer, but may refuse what we produce.
	for _, producer := range p.producers {
		if problem := producer.Trouble(); problem != "" {
			return problem
		}
	}
	return ""
}

// clickhouseProblem returns why ClickHouse cannot be used.
func (p *pipeline) clickhouseProblem(ctx context.Context) string {
	if err := p.backend.conn.Ping(ctx); err != nil {
		return "ClickHouse does not answer: " + err.Error()
	}
	return ""
}

// diskProblem reports a full disk of the embedded engines.
func (p *pipeline) diskProblem(context.Context) string {
	if !p.cfg.needsOneProcess() {
		return ""
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(p.cfg.DataDir, &disk); err != nil {
		return fmt.Sprintf("the data folder %s: %v", p.cfg.DataDir, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < minDisk {
		return fmt.Sprintf("the disk is full: %s free in %s", humanize.IBytes(free), p.cfg.DataDir)
	}
	return ""
}
