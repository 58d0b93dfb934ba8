package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

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
func (s *stage) start(p part) {
	s.g.Go(func() error {
		// An error after the stop is its consequence.
		err := p.run(s.ctx)
		if s.ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("stopped unexpectedly")
		}
		s.fail(fmt.Errorf("%s: %w", p.name, err))
		return nil
	})
}

// end stops the parts and returns when they have ended.
func (s *stage) end() {
	s.stop()
	_ = s.g.Wait()
}
