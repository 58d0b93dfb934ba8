package kafkalocal

import (
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// verifier looks at what a fetch is about to return. kfake returns the bytes of its
// files as they are, and kafka-go does not check the sums of batches: it takes damaged
// records for sound ones, or waits for bytes that never come. A fetch that would begin
// with a damaged batch gets Kafka's CORRUPT_MESSAGE, one that would reach it later ends
// before it.
//
// kfake calls it from one goroutine, the one that also writes the files.
type verifier struct {
	dir    string // of the partitions' folders
	places map[string]place
	buf    []byte // of read, kept from fetch to fetch
}

// place is where a partition was read last: the next fetch usually begins there.
type place struct {
	offset int64 // of the next batch
	base   int64 // of its segment
	at     int64 // in the segment's file
}

const corruptMessage = 2 // Kafka's error code

func newVerifier(dir string) *verifier {
	return &verifier{dir: filepath.Join(dir, "log", "partitions"), places: map[string]place{}}
}

// fetch looks at a request. It answers it itself when a partition begins with damage,
// and otherwise may lower how much kfake returns.
func (v *verifier) fetch(request kmsg.Request) (kmsg.Response, error, bool) {
	req, ok := request.(*kmsg.FetchRequest)
	if !ok {
		return nil, nil, false
	}
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	damaged := false
	for i := range req.Topics {
		topic := &req.Topics[i]
		answer := kmsg.NewFetchResponseTopic()
		answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
		for j := range topic.Partitions {
			p := &topic.Partitions[j]
			sound, ok := v.sound(topic.Topic, p.Partition, p.FetchOffset, int64(p.PartitionMaxBytes))
			one := kmsg.NewFetchResponseTopicPartition()
			one.Partition, one.HighWatermark = p.Partition, -1
			if !ok {
				damaged = true
				one.ErrorCode = corruptMessage
			} else if sound > 0 {
				p.PartitionMaxBytes = int32(min(sound, int64(p.PartitionMaxBytes)))
			}
			answer.Partitions = append(answer.Partitions, one)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, nil, damaged
}

// sound returns how many bytes can be returned from an offset on, most at most, before
// damage; 0 where that cannot be told, which is for kfake to answer. It is not ok when the
// offset itself is in damage.
func (v *verifier) sound(topic string, partition int32, offset, most int64) (n int64, ok bool) {
	folder := fmt.Sprintf("%s-%d", url.PathEscape(topic), partition)
	from, known := v.places[folder]
	if !known || from.offset != offset {
		base, found := segmentOf(filepath.Join(v.dir, folder), offset)
		if !found {
			return 0, true
		}
		from = place{offset: base, base: base}
	}

	// As much as the fetch may return; more where that is less than the first batch, or
	// where the offset still has to be found.
	path := filepath.Join(v.dir, folder, strconv.FormatInt(from.base, 10)+".dat")
	length := most
	if from.offset != offset {
		length = math.MaxInt64
	}
	data, more := v.read(path, from.at, length)
	if _, whole := skim(data, 0, from.offset); !whole && more {
		data, _ = v.read(path, from.at, math.MaxInt64)
	}

	at, least := 0, from.offset
	for at < len(data) {
		b, whole := readBatch(data, at, least)
		switch {
		case whole && b.last < offset: // on the way to it
			at, least = b.end, b.last+1
			continue
		case whole && n > 0 && n+int64(b.end-b.at) > most:
			v.places[folder] = place{offset: b.first, base: from.base, at: from.at + int64(b.at)}
			return n, true
		case whole:
			n += int64(b.end - b.at)
			at, least = b.end, b.last+1
			continue
		case n > 0: // the rest was not read, or is damaged: the next fetch tells
			v.places[folder] = place{offset: least, base: from.base, at: from.at + int64(at)}
			return n, true
		}

		// Damage, before the offset or at it.
		for at++; at < len(data); at++ {
			if b, whole = readBatch(data, at, least); whole {
				break
			}
		}
		if !whole || b.first > offset {
			return 0, false
		}
		least = b.first
	}
	if n > 0 {
		v.places[folder] = place{offset: least, base: from.base, at: from.at + int64(at)}
		return n, true
	}
	delete(v.places, folder) // the end of a segment; the offset is in the next one, or still to come
	return 0, true
}

// skim reads where a batch stands without checking its sum.
func skim(data []byte, at int, least int64) (b batch, ok bool) {
	if at+batchHeader > len(data) {
		return b, false
	}
	b = header(data, at)
	return b, data[at+16] == 2 && b.end <= len(data) && b.end >= at+batchHeader && b.first >= least && b.last >= b.first
}

// segmentOf is the first offset of the segment that has an offset.
func segmentOf(folder string, offset int64) (base int64, found bool) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return 0, false
	}
	for _, file := range files {
		text, isSegment := strings.CutSuffix(file.Name(), ".dat")
		n, err := strconv.ParseInt(text, 10, 64)
		if isSegment && err == nil && n <= offset && (!found || n > base) {
			base, found = n, true
		}
	}
	return base, found
}

// maxKept is how large a buffer may be to be kept: what a fetch of ours reads at most.
const maxKept = 4 << 20

// read reads a file from a position on, most bytes at most, into memory that the next call
// uses again. more reports whether the file goes on after them.
func (v *verifier) read(path string, at, most int64) (data []byte, more bool) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() <= at {
		return nil, false
	}

	data = slices.Grow(v.buf[:0], int(min(info.Size()-at, most)))
	data = data[:min(info.Size()-at, most)]
	if cap(data) <= maxKept {
		v.buf = data
	}
	n, err := io.ReadFull(io.NewSectionReader(file, at, int64(len(data))), data)
	return data[:n], err == nil && at+int64(n) < info.Size()
}
