package engines

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// minDisk is the free space in bytes below which a disk counts as full: a segment of Kafka and a merge of
// ClickHouse no longer fit.
const minDisk = 64 << 20

// KafkaProblem returns why Kafka cannot be used; empty if it can.
func (e *Engines) KafkaProblem(ctx context.Context) string {
	if err := e.Kafka.Ping(ctx); err != nil {
		return "Kafka does not answer: " + err.Error()
	}

	// The brokers answer, but may refuse what we produce.
	for _, producer := range e.producers {
		if problem := producer.Trouble(); problem != "" {
			return problem
		}
	}
	return ""
}

// ClickHouseProblem returns why ClickHouse cannot be used; empty if it can.
func (e *Engines) ClickHouseProblem(ctx context.Context) string {
	if err := e.Conn.Ping(ctx); err != nil {
		return "ClickHouse does not answer: " + err.Error()
	}
	return ""
}

// DiskProblem reports a full disk of the embedded engines; empty while there is room.
func (e *Engines) DiskProblem(context.Context) string {
	if !e.cfg.NeedsOneProcess() {
		return ""
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(e.cfg.DataDir, &disk); err != nil {
		return fmt.Sprintf("the data folder %s: %v", e.cfg.DataDir, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < minDisk {
		return fmt.Sprintf("the disk is full: %s free in %s", humanize.IBytes(free), e.cfg.DataDir)
	}
	return ""
}
