package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// leastDisk is the free space below which a disk is full: a segment of Kafka's and a
// merge of ClickHouse's no longer fit.
const leastDisk = 64 << 20

// checks are the readiness of the roles. A role is ready while it does its work: Kafka and
// ClickHouse answer, what it reads and writes does not fail, and within a minute it gets on
// with what there is to do.
func (p *pipeline) checks() []check {
	var list []check
	add := func(role string, troubles ...func(ctx context.Context) string) {
		list = append(list, check{role, func(ctx context.Context) string {
			for _, trouble := range append([]func(context.Context) string{p.diskTrouble, p.kafkaTrouble}, troubles...) {
				if text := trouble(ctx); text != "" {
					return text
				}
			}
			return ""
		}})
	}
	group := func(suffix string) func(context.Context) string {
		return func(context.Context) string {
			// The pull goes by checkpoints, not by offsets.
			return p.backend.kafka.Trouble(p.cfg.group(suffix), suffix != groupPuller)
		}
	}

	if p.has(rolePull) {
		add(rolePull, func(context.Context) string { return p.failing() }, group(groupPuller))
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
		add(roleNotify, p.clickhouseTrouble, group(groupNotifier))
	}
	return list
}

// trouble is why roles of this process do not do their work, each with its reason; empty
// when all do.
func (p *pipeline) trouble(ctx context.Context) string {
	var found []string
	for _, c := range p.checks() {
		if text := c.trouble(ctx); text != "" {
			found = append(found, c.role+": "+text)
		}
	}
	return strings.Join(found, "; ")
}

// kafkaTrouble is why Kafka cannot be used.
func (p *pipeline) kafkaTrouble(ctx context.Context) string {
	if err := p.backend.kafka.Ping(ctx); err != nil {
		return "Kafka does not answer: " + err.Error()
	}
	for _, producer := range p.producers {
		if text := producer.Trouble(); text != "" {
			return text
		}
	}
	return ""
}

func (p *pipeline) clickhouseTrouble(ctx context.Context) string {
	if err := p.backend.conn.Ping(ctx); err != nil {
		return "ClickHouse does not answer: " + err.Error()
	}
	return ""
}

// diskTrouble is whether the disk of the embedded engines is full.
func (p *pipeline) diskTrouble(context.Context) string {
	if !p.cfg.needsOneProcess() {
		return ""
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(p.cfg.DataDir, &disk); err != nil {
		return fmt.Sprintf("the data folder %s: %v", p.cfg.DataDir, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < leastDisk {
		return fmt.Sprintf("the disk is full: %s free in %s", humanize.IBytes(free), p.cfg.DataDir)
	}
	return ""
}
