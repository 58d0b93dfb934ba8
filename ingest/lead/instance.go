package lead

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
)

// ErrNoInstance reports that no running instance pulls, or none any more.
var ErrNoInstance = errors.New("no instance pulls")

// Instances are the processes that pull, as a command sees them.
type Instances struct {
	Kafka    *kafka.Client
	Topic    string // the checkpoints
	Group    string // the consumer group of the processes that pull
	Embedded bool   // Kafka is the embedded one of the instance, and ends with it
	Log      *slog.Logger
}

// Ask calls f with the requests of the running instances. Its error is ErrNoInstance when none runs or when
// the last one has gone.
func (i *Instances) Ask(ctx context.Context, f func(context.Context, *Requests) error) error {
	members, err := i.Kafka.Members(ctx, i.Group)
	if err != nil {
		return err
	}

	// The group is empty. An external Kafka runs without us; an embedded one belongs to a process that has the
	// data folder, so we cannot use it.
	if members == 0 && !i.Embedded {
		return ErrNoInstance
	}
	if members == 0 {
		return errors.New("another tenantwatch uses the data folder but does not pull; try again when it has started")
	}

	// An embedded broker ends with its instance and returns with it. With an external one, an instance that
	// was killed remains a member of the group for a while, so its absence shows later.
	waitCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !i.Embedded {
		go watchGroup(waitCtx, i.Kafka, i.Group, cancel)
	}
	err = f(waitCtx, NewRequests(i.Kafka, i.Topic, i.Log))

	// The request may be half done. Serving it again duplicates no events.
	if err != nil && errors.Is(context.Cause(waitCtx), ErrNoInstance) {
		return ErrNoInstance
	}
	return err
}

// absenceTimeout is how long a group must be empty before its instances count as gone: one that restarts is
// back sooner.
const absenceTimeout = 10 * time.Second

// watchGroup cancels with ErrNoInstance when a group has lost all its members.
func watchGroup(ctx context.Context, k *kafka.Client, group string, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}

		members, err := k.Members(ctx, group)
		// A broker that does not answer says nothing about the group.
		if err != nil || members > 0 {
			seen = time.Now()
		} else if time.Since(seen) > absenceTimeout {
			cancel(ErrNoInstance)
			return
		}
	}
}
