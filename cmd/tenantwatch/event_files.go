package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/schema"
)

// pieceSize is how many events are read before they are handed on.
const pieceSize = 256

// fileEvent is an event of a file, or why it cannot be read.
type fileEvent struct {
	schema.Event
	ownID string // empty where it has none, and LogID is its place
	place string // where it cannot be read
	err   error
}

// eachEvent calls yield for every event of a file, as rules scan takes them: an
// object a line or an array of them, bare or in the envelope of a log stream. One
// without an id is known by its place; logID is empty then. What cannot be read is
// told to bad, and the rest is read; an error of yield ends it. Events are read while
// yield works on those before.
func eachEvent(ctx context.Context, name string, in io.Reader, yield func(ev *schema.Event, logID string) error, bad func(place string, err error)) error {
	pieces := make(chan []fileEvent, 4)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(pieces)
		piece := make([]fileEvent, 0, pieceSize)
		send := func() error {
			select {
			case pieces <- piece:
				piece = make([]fileEvent, 0, pieceSize)
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := readEvents(ctx, name, in, func(ev fileEvent) error {
			if piece = append(piece, ev); len(piece) < pieceSize {
				return nil
			}
			return send()
		})
		return cmp.Or(err, send())
	})
	g.Go(func() error {
		for piece := range pieces {
			for i := range piece {
				ev := &piece[i]
				if ev.err != nil {
					bad(ev.place, ev.err)
				} else if err := yield(&ev.Event, ev.ownID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// readEvents calls yield for what a file has, until that returns an error.
func readEvents(ctx context.Context, name string, in io.Reader, yield func(fileEvent) error) error {
	r := bufio.NewReaderSize(in, 1<<20)
	if first, err := firstByte(r); err == nil && first == '[' {
		return readArray(ctx, name, r, yield)
	}
	for line := 1; ctx.Err() == nil; line++ {
		text, err := r.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := yield(identified(text, "%s:%d", name, line)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return ctx.Err()
}

// readArray calls yield for the members of an array, which is all that a file has.
func readArray(ctx context.Context, name string, r io.Reader, yield func(fileEvent) error) error {
	dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	_, err := dec.ReadToken()
	for n := 1; err == nil && dec.PeekKind() != ']' && ctx.Err() == nil; n++ {
		var value jsontext.Value
		if value, err = dec.ReadValue(); err != nil {
			break
		}
		if err := yield(identified(bytes.Clone(value), "%s[%d]", name, n)); err != nil {
			return err
		}
	}
	if err == nil && ctx.Err() == nil {
		if _, err = dec.ReadToken(); err == nil {
			if _, err = dec.ReadToken(); errors.Is(err, io.EOF) {
				return nil
			}
			err = errors.New("there is more after the array, which is not read")
		}
	}
	if err != nil {
		return yield(fileEvent{place: name, err: err})
	}
	return ctx.Err()
}

// identified is the event of a text, whose place is the nth of a file.
func identified(text []byte, place, name string, n int) fileEvent {
	ev := fileEvent{Event: schema.Event{Raw: logstream.Unwrap(text)}}
	ev.err = ev.Identify()
	ev.ownID = ev.LogID
	if ev.err != nil {
		ev.place = fmt.Sprintf(place, name, n)
	}
	if errors.Is(ev.err, schema.ErrNoID) {
		id, _ := json.Marshal(ev.place)
		ev.Raw = logstream.Unwrap(fmt.Appendf(nil, `{"log_id":%s,"data":%s}`, id, ev.Raw))
		ev.err = ev.Identify()
	}
	ev.FetchedAt = ev.Date
	return ev
}

// firstByte is the first that is no white space; it and what follows are still to
// be read.
func firstByte(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if !bytes.ContainsRune([]byte(" \t\r\n"), rune(b)) {
			return b, r.UnreadByte()
		}
	}
}
