package schema

import (
	"time"
	"unsafe"
)

// Record is a Kafka record, as all stages exchange it. Its topic is always clear from the context.
type Record struct {
	Partition int
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []Header
	Time      time.Time // when it was produced
}

// Header is one header of a Record.
type Header struct {
	Key   string
	Value []byte
}

// Header returns the first header with a name, or "". It is not a copy: the header
// must not change while the result is in use.
func (r *Record) Header(name string) string {
	value := r.header(name)
	return unsafe.String(unsafe.SliceData(value), len(value))
}

func (r *Record) header(name string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value
		}
	}
	return nil
}

// time returns the first header with a name, if it is a time in RFC 3339.
func (r *Record) time(name string) (t time.Time, ok bool) {
	err := t.UnmarshalText(r.header(name))
	return t, err == nil
}
