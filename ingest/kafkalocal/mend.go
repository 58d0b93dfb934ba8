package kafkalocal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// kfake cuts a segment at the first batch that is damaged and so loses those behind it,
// without a word. So segments are looked through before it starts: what is damaged is
// named, moved into the folder "damaged", and the batches behind it are kept.
//
// A segment is Kafka's record batches, one after the other, in a file OFFSET.dat; the
// file OFFSET.idx beside it has 15 bytes for each.

const (
	batchHeader = 61 // bytes of a batch before its records
	sumFrom     = 21 // where the bytes begin that its sum is of
	indexEntry  = 15
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is where a record batch stands in a segment.
type batch struct {
	at, end     int   // in the file
	first, last int64 // offsets
}

// header reads where a batch stands, whatever its header says.
func header(data []byte, at int) batch {
	b := batch{at: at, end: at + 12 + int(binary.BigEndian.Uint32(data[at+8:])), first: int64(binary.BigEndian.Uint64(data[at:]))}
	b.last = b.first + int64(int32(binary.BigEndian.Uint32(data[at+23:])))
	return b
}

// readBatch reads the batch at a place; not ok when there is no whole and sound one whose
// offsets are least or above.
func readBatch(data []byte, at int, least int64) (b batch, ok bool) {
	if b, ok = skim(data, at, least); !ok {
		return b, false
	}
	if crc32.Checksum(data[at+sumFrom:b.end], castagnoli) != binary.BigEndian.Uint32(data[at+17:]) {
		return b, false
	}

	// The sum is not of the first offset. One that leaves a gap, as compaction does, has
	// to be below that of the batch behind it.
	if b.first > least {
		if next, ok := skim(data, b.end, 0); ok && next.first <= b.last {
			return b, false
		}
	}
	return b, true
}

// mend looks through all segments of a broker's data. It returns an error only when the
// files cannot be read or written.
func mend(dir string, log *slog.Logger) error {
	partitions := filepath.Join(dir, "log", "partitions")
	segments, err := filepath.Glob(filepath.Join(escapeGlob(partitions), "*", "*.dat"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		if err := mendSegment(segment, filepath.Join(dir, "damaged"), log); err != nil {
			return fmt.Errorf("look through %s: %w", segment, err)
		}
	}
	return nil
}

// escapeGlob makes a pattern of a path that matches only that.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func mendSegment(segment, damagedDir string, log *slog.Logger) error {
	data, err := os.ReadFile(segment)
	if err != nil {
		return err
	}
	base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(segment), ".dat"), 10, 64)
	if err != nil {
		return nil // not a segment
	}

	var sound []batch // those before the first damage, and then those behind
	before := -1      // how many are before it
	least := base
	for at := 0; at < len(data); {
		b, ok := readBatch(data, at, least)
		if ok {
			sound = append(sound, b)
			at, least = b.end, b.last+1
			continue
		}

		// The next sound batch, wherever it begins.
		next := at + 1
		for ; next < len(data); next++ {
			if b, ok = readBatch(data, next, least); ok {
				break
			}
		}
		if !ok && unfinished(data[at:]) {
			log.Warn("the last batch of a segment was never finished, nor acknowledged; it is cut off", "file", segment, "from_offset", least)
		} else if err := keepDamaged(segment, damagedDir, at, data[at:next], log, least, b.first, ok); err != nil {
			return err
		}
		if before < 0 {
			before = len(sound)
		}
		at = next
	}
	if before < 0 {
		return nil
	}
	return rewrite(segment, data, sound, before)
}

// unfinished reports whether the bytes are the beginning of a batch that was cut by the
// end of the file, as a power loss leaves it.
func unfinished(rest []byte) bool {
	return len(rest) < batchHeader || rest[16] == 2 && 12+int64(binary.BigEndian.Uint32(rest[8:])) > int64(len(rest))
}

// keepDamaged names a damage and moves its bytes aside.
func keepDamaged(segment, dir string, at int, bytes []byte, log *slog.Logger, from, to int64, followed bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%d", filepath.Base(filepath.Dir(segment)), filepath.Base(segment), at)
	if err := writeSynced(filepath.Join(dir, name), bytes); err != nil {
		return err
	}
	attrs := []any{"file", segment, "from_byte", at, "bytes", len(bytes), "from_offset", from, "kept_in", filepath.Join(dir, name)}
	if followed {
		attrs = append(attrs, "to_offset", to)
	}
	log.Error("a segment of the embedded Kafka is damaged; its records are left out, audits bring back the events that were there", attrs...)
	return nil
}

// rewrite makes a segment of its sound batches. If we die between the two files, the
// index has an entry too many, which kfake cuts off.
func rewrite(segment string, data []byte, sound []batch, before int) error {
	var kept []byte
	for _, b := range sound {
		kept = append(kept, data[b.at:b.end]...)
	}
	if err := writeSynced(segment, kept); err != nil {
		return err
	}

	path := strings.TrimSuffix(segment, ".dat") + ".idx"
	index, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries := slices.Collect(slices.Chunk(index, indexEntry))
	after := len(sound) - before
	if len(entries) < len(sound) || len(entries[len(entries)-1]) < indexEntry {
		return os.Remove(path) // without it kfake takes its defaults
	}
	return writeSynced(path, slices.Concat(append(slices.Clone(entries[:before]), entries[len(entries)-after:]...)...))
}

// writeSynced replaces a file.
func writeSynced(path string, data []byte) error {
	tmp := path + ".tmp"
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// File is the segment file that has a record of a partition, for a message to people;
// empty when it cannot be told.
func File(dir, topic string, partition int, offset int64) string {
	folder := filepath.Join(dir, "log", "partitions", fmt.Sprintf("%s-%d", url.PathEscape(topic), partition))
	base, found := segmentOf(folder, offset)
	if !found {
		return ""
	}
	return filepath.Join(folder, strconv.FormatInt(base, 10)+".dat")
}
