package eventfile

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

// batchSize is how many events are read before they are passed on.
const batchSize = 256

// fileEvent is an event of a file, or the reason why it cannot be read.
type fileEvent struct {
	schema.Event
	ownID string // empty for an event without an id, whose LogID is its place
	place string // of an event that cannot be read
	err   error
}

// Each calls yield for every event of a file, and reject for what cannot be read. An error of yield ends
// it.
//
// A file has one object a line, or one array of objects, each bare or in the envelope of a log stream. An
// event without an id is identified by its place, such as events.ndjson:7; logID is empty then. The next
// events are parsed while yield processes those before.
func Each(
	ctx context.Context, name string, in io.Reader, yield func(ev *schema.Event, logID string) error,
	reject func(place string, err error),
) error {
	batches := make(chan []fileEvent, 4)
	g, ctx := errgroup.WithContext(ctx)

	g.Go(func() error {
		// The parser: sends full batches, and at the end the rest. When the consumer fails, ctx ends it.
		defer close(batches)
		batch := make([]fileEvent, 0, batchSize)
		send := func() error {
			select {
			case batches <- batch:
				batch = make([]fileEvent, 0, batchSize)
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := readEvents(ctx, name, in, func(ev fileEvent) error {
			if batch = append(batch, ev); len(batch) < batchSize {
				return nil
			}
			return send()
		})
		return cmp.Or(err, send())
	})

	g.Go(func() error {
		// The consumer.
		for batch := range batches {
			for i := range batch {
				ev := &batch[i]
				if ev.err != nil {
					reject(ev.place, ev.err)
				} else if err := yield(&ev.Event, ev.ownID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// readEvents calls yield for each event of a file until that returns an error.
func readEvents(ctx context.Context, name string, in io.Reader, yield func(fileEvent) error) error {
	r := bufio.NewReaderSize(in, 1<<20)

	// The first byte tells the format; a read error is reported below.
	if first, err := firstByte(r); err == nil && first == '[' {
		return readArray(ctx, name, r, yield)
	}

	for line := 1; ctx.Err() == nil; line++ {
		text, err := r.ReadBytes('\n')
		// The last line may lack its line feed: text and io.EOF come together.
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := yield(newFileEvent(text, "%s:%d", name, line)); err != nil {
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

// readArray calls yield for each member of the array that is the file's content.
func readArray(ctx context.Context, name string, r io.Reader, yield func(fileEvent) error) error {
	dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	_, err := dec.ReadToken() // [
	for n := 1; err == nil && dec.PeekKind() != ']' && ctx.Err() == nil; n++ {
		var value jsontext.Value
		if value, err = dec.ReadValue(); err != nil {
			break
		}
		// The decoder reuses the memory of the value.
		if err := yield(newFileEvent(bytes.Clone(value), "%s[%d]", name, n)); err != nil {
			return err
		}
	}

	// The array must end, and the file with it.
	if err == nil && ctx.Err() == nil {
		if _, err = dec.ReadToken(); err == nil {
			if _, err = dec.ReadToken(); errors.Is(err, io.EOF) {
				return nil
			}
			err = errors.New("unexpected content after the array; it is not read")
		}
	}
	if err != nil {
		// The events before the fault have been passed on.
		return yield(fileEvent{place: name, err: err})
	}
	return ctx.Err()
}

// newFileEvent parses the nth event of a file. placeFormat formats its place from the file's name and n.
func newFileEvent(text []byte, placeFormat, name string, n int) fileEvent {
	ev := fileEvent{Event: schema.Event{Raw: logstream.Unwrap(text)}}
	ev.err = ev.Identify()
	ev.ownID = ev.LogID
	if ev.err != nil {
		ev.place = fmt.Sprintf(placeFormat, name, n)
	}

	// Give an event without an id its place as one, in the envelope of a log stream.
	if errors.Is(ev.err, schema.ErrNoID) {
		id, _ := json.Marshal(ev.place)
		ev.Raw = logstream.Unwrap(fmt.Appendf(nil, `{"log_id":%s,"data":%s}`, id, ev.Raw))
		ev.err = ev.Identify()
	}

	// A file does not tell when an event was pulled: it counts as pulled at once.
	ev.FetchedAt = ev.Date
	return ev
}

// firstByte returns the first byte that is not white space, without consuming it.
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
