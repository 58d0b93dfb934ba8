package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tenantwatch/tenantwatch/ingest/logstream"
	"github.com/tenantwatch/tenantwatch/schema"
)

// eachEvent calls yield for every event of a file, as rules scan takes them: an
// object a line or an array of them, bare or in the envelope of a log stream. One
// without an id is known by its place; logID is empty then. What cannot be read is told to bad, and the
// rest is read.
func eachEvent(ctx context.Context, name string, in io.Reader, yield func(ev *schema.Event, logID string), bad func(place string, err error)) error {
	event := func(place string, raw []byte) {
		ev := schema.Event{Raw: logstream.Unwrap(raw)}
		err := ev.Identify()
		logID := ev.LogID
		if errors.Is(err, schema.ErrNoID) {
			id, _ := json.Marshal(place)
			ev.Raw = logstream.Unwrap(fmt.Appendf(nil, `{"log_id":%s,"data":%s}`, id, ev.Raw))
			err = ev.Identify()
		}
		if err != nil {
			bad(place, err)
			return
		}
		ev.FetchedAt = ev.Date
		yield(&ev, logID)
	}
	r := bufio.NewReaderSize(in, 1<<20)
	if first, err := firstByte(r); err == nil && first == '[' {
		dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		_, err := dec.ReadToken()
		for n := 1; err == nil && dec.PeekKind() != ']' && ctx.Err() == nil; n++ {
			var value jsontext.Value
			if value, err = dec.ReadValue(); err == nil {
				event(fmt.Sprintf("%s[%d]", name, n), value)
			}
		}
		if err != nil {
			bad(name, err)
		}
		return ctx.Err()
	}
	for line := 1; ctx.Err() == nil; line++ {
		text, err := r.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			event(fmt.Sprintf("%s:%d", name, line), text)
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
