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

// verifier checks the batches that a fetch is about to return. kfake returns the bytes of
// its files without a check, and kafka-go does not check the checksums of batches: it would
// return damaged records, or wait for bytes forever. A fetch that starts with a damaged
// batch is answered with Kafka's CORRUPT_MESSAGE; a fetch that reaches one later ends before it.
//
// kfake calls it from one goroutine, which also writes the files.
type verifier struct {
	dir       string                // of the partitions' folders
	positions map[string][]position // by folder of a partition
	buf       []byte                // of read, kept from fetch to fetch
}

// position is the end of a fetch of a partition. The consumer's next one usually starts there.
type position struct {
	offset int64 // of the next batch
	base   int64 // of its segment
	at     int64 // in the segment's file
}

// maxPositions is the number of positions of a partition that are kept: about one for each consumer.
const maxPositions = 8

const corruptMessage = 2 // Kafka's error code

func newVerifier(dir string) *verifier {
	return &verifier{dir: filepath.Join(dir, "log", "partitions"), positions: map[string][]position{}}
}

// fetch checks a request. It answers the request if a partition starts with damage.
// Otherwise kfake answers, and fetch limits the bytes so that they end before any damage.
func (v *verifier) fetch(request kmsg.Request) (response kmsg.Response, damaged bool) {
	req, ok := request.(*kmsg.FetchRequest)
	if !ok {
		return nil, false
	}

	// A response has all partitions: those without damage are empty, and fetched again.
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	for i := range req.Topics {
		topic := &req.Topics[i]
		answer := kmsg.NewFetchResponseTopic()
		answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
		for j := range topic.Partitions {
			p := &topic.Partitions[j]
			sound, ok := v.sound(topic.Topic, p.Partition, p.FetchOffset, int64(p.PartitionMaxBytes))
			partition := kmsg.NewFetchResponseTopicPartition()
			partition.Partition, partition.HighWatermark = p.Partition, -1
			if !ok {
				damaged = true
				partition.ErrorCode = corruptMessage
			} else if sound > 0 {
				p.PartitionMaxBytes = int32(min(sound, int64(p.PartitionMaxBytes)))
			}
			answer.Partitions = append(answer.Partitions, partition)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, damaged
}

// sound returns the number of bytes, at most most, from an offset to the next damage, or 0 if
// it is unknown: then kfake must answer. ok is false if the offset itself is damaged.
func (v *verifier) sound(topic string, partition int32, offset, most int64) (n int64, ok bool) {
	folder := fmt.Sprintf("%s-%d", url.PathEscape(topic), partition)
	from, known := v.takePosition(folder, offset)
	if !known {
		base, found := segmentOf(filepath.Join(v.dir, folder), offset)
		if !found {
			return 0, true
		}
		from = position{offset: base, base: base}
	}

	// Read as much as the fetch may return. Read more if that is less than the first batch, or if
	// the offset is not at the position.
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
		case whole && b.last < offset: // before the offset
			at, least = b.end, b.last+1
			continue
		case whole && n > 0 && n+int64(b.end-b.at) > most:
			v.keepPosition(folder, position{offset: b.first, base: from.base, at: from.at + int64(b.at)})
			return n, true
		case whole:
			n += int64(b.end - b.at)
			at, least = b.end, b.last+1
			continue
		case n > 0: // the rest was not read, or is damaged: the next fetch finds out
			v.keepPosition(folder, position{offset: least, base: from.base, at: from.at + int64(at)})
			return n, true
		}

		// Damage, before the offset or at it. Find the next sound batch.
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
		v.keepPosition(folder, position{offset: least, base: from.base, at: from.at + int64(at)})
		return n, true
	}

	// The end of a segment. The offset is in the next one, or in no segment yet.
	return 0, true
}

// takePosition returns the position of an offset and forgets it. It returns false if none is known: then
// the segment must be read from its start.
func (v *verifier) takePosition(folder string, offset int64) (position, bool) {
	known := v.positions[folder]
	i := slices.IndexFunc(known, func(p position) bool { return p.offset == offset })
	if i < 0 {
		return position{}, false
	}
	found := known[i]
	v.positions[folder] = slices.Delete(known, i, i+1)
	return found, true
}

// keepPosition keeps the position at which a fetch ends, instead of the oldest one if there are many.
func (v *verifier) keepPosition(folder string, end position) {
	known := v.positions[folder]
	if len(known) == maxPositions {
		known = slices.Delete(known, 0, 1)
	}
	v.positions[folder] = append(known, end)
}

// skim reads the header of a batch without checking its checksum. ok is false if it is not
// plausible.
func skim(data []byte, at int, least int64) (b batch, ok bool) {
	if at+batchHeader > len(data) {
		return b, false
	}
	b = header(data, at)
	isVersion2 := data[at+16] == 2
	isInside := b.end <= len(data) && b.end >= at+batchHeader
	return b, isVersion2 && isInside && b.first >= least && b.last >= b.first
}

// segmentOf returns the first offset of the segment that has an offset.
func segmentOf(folder string, offset int64) (base int64, found bool) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return 0, false
	}

	// It is the last segment that does not start after the offset.
	for _, file := range files {
		text, isSegment := strings.CutSuffix(file.Name(), ".dat")
		first, err := strconv.ParseInt(text, 10, 64)
		if isSegment && err == nil && first <= offset && (!found || first > base) {
			base, found = first, true
		}
	}
	return base, found
}

// maxKept is the size up to which the buffer is kept: a fetch of ours reads at most that.
const maxKept = 4 << 20

// read reads at most most bytes of a file from a position on, into memory that the next call
// uses again. more is true if the file has more.
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

	length := min(info.Size()-at, most)
	switch {
	case length <= int64(cap(v.buf)):
		data = v.buf[:length]
	case length <= maxKept:
		v.buf = make([]byte, length)
		data = v.buf
	default:
		data = make([]byte, length)
	}
	n, err := io.ReadFull(io.NewSectionReader(file, at, int64(len(data))), data)
	return data[:n], err == nil && at+int64(n) < info.Size()
}
