package eventfile

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/tenantwatch/tenantwatch/schema"
)

// NameError reports a file that cannot be opened.
type NameError struct{ error }

// Files are files of events that can be read more than once.
type Files []source

// source is a file that can be read more than once.
type source struct {
	*os.File
	name string
	end  func()
}

// Open opens files by their names; - stands for the standard input, which is copied to a temporary file. The
// error is a NameError for a file that cannot be opened.
func Open(names []string, stdin io.Reader) (list Files, err error) {
	defer func() {
		if err != nil {
			list.Close()
		}
	}()

	for _, name := range names {
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return list, NameError{err}
			}
			list = append(list, source{file, name, func() { file.Close() }})
			continue
		}

		file, err := os.CreateTemp("", "tenantwatch-*.ndjson")
		if err != nil {
			return list, err
		}
		list = append(list, source{file, name, func() { file.Close(); os.Remove(file.Name()) }})
		if _, err := io.Copy(file, stdin); err != nil {
			return list, fmt.Errorf("copy the standard input: %w", err)
		}
	}
	return list, nil
}

// Each calls yield for each event of the files, from their beginning, and reject for what cannot be read. An
// event is valid during the call only.
func (f Files) Each(ctx context.Context, yield func(*schema.Event), reject func(place string, err error)) error {
	each := func(ev *schema.Event, _ string) error { yield(ev); return nil }
	for _, file := range f {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read %s: %w", file.name, err)
		}
		if err := Each(ctx, file.name, file, each, reject); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files and removes the temporary ones.
func (f Files) Close() {
	for _, file := range f {
		file.end()
	}
}
