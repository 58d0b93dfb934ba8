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

	"github.com/tenantwatch/tenantwatch/schema/datadir"
)

// kfake cuts a segment at its first damaged batch, and so silently loses the batches after
// it. Therefore segments are checked before it starts: damaged bytes are reported and moved
// into the folder "damaged", and the batches after them are kept.
//
// A segment is a file OFFSET.dat with Kafka's record batches, one after the other. The file
// OFFSET.idx beside it has 15 bytes for each batch.

const (
	batchHeader = 61 // bytes of a batch before its records
	sumFrom     = 21 // first byte of a batch that its checksum covers
	indexEntry  = 15
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is the position of a record batch in a segment.
type batch struct {
	at, end     int   // in the file
	first, last int64 // offsets
}

// header reads the header of a batch, without any check.
func header(data []byte, at int) batch {
	length := int(binary.BigEndian.Uint32(data[at+8:])) // of the bytes after this field
	first := int64(binary.BigEndian.Uint64(data[at:]))
	lastDelta := int64(int32(binary.BigEndian.Uint32(data[at+23:])))
	return batch{at: at, end: at + 12 + length, first: first, last: first + lastDelta}
}

// readBatch reads the batch at a position. ok is false if there is no complete and sound
// batch whose offsets are at least least.
func readBatch(data []byte, at int, least int64) (b batch, ok bool) {
	if b, ok = skim(data, at, least); !ok {
		return b, false
	}
	if crc32.Checksum(data[at+sumFrom:b.end], castagnoli) != binary.BigEndian.Uint32(data[at+17:]) {
		return b, false
	}

	// The checksum does not cover the first offset. After a gap, which compaction may leave, the
	// offsets must be lower than those of the batch behind.
	if b.first > least {
		if next, ok := skim(data, b.end, 0); ok && next.first <= b.last {
			return b, false
		}
	}
	return b, true
}

// repair checks all segments of a broker, and repairs the damaged ones. It returns an error
// only if files cannot be read or written.
func repair(dir string, log *slog.Logger) error {
	partitions := filepath.Join(dir, "log", "partitions")
	segments, err := filepath.Glob(filepath.Join(escapeGlob(partitions), "*", "*.dat"))
	if err != nil {
		return err
	}

	for _, segment := range segments {
		if err := repairSegment(segment, filepath.Join(dir, "damaged"), log); err != nil {
			return fmt.Errorf("check %s: %w", segment, err)
		}
	}
	return nil
}

// escapeGlob returns a pattern that matches only a path.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// repairSegment removes damaged bytes from a segment.
func repairSegment(segment, damagedDir string, log *slog.Logger) error {
	data, err := os.ReadFile(segment)
	if err != nil {
		return err
	}
	base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(segment), ".dat"), 10, 64)
	if err != nil {
		return nil // not a segment
	}

	var sound []batch // in their order
	before := -1      // number of those before the first damage; -1 if there is none
	least := base
	for at := 0; at < len(data); {
		b, ok := readBatch(data, at, least)
		if ok {
			sound = append(sound, b)
			at, least = b.end, b.last+1
			continue
		}

		// Damage. Find the next sound batch, at any byte.
		next := at + 1
		for ; next < len(data); next++ {
			if b, ok = readBatch(data, next, least); ok {
				break
			}
		}

		// A batch that a power loss has cut was never acknowledged.
		if !ok && isUnfinished(data[at:]) {
			log.Warn("removed an unfinished batch, which was never acknowledged, from the end of a segment",
				"file", segment, "from_offset", least)
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

// isUnfinished reports whether the bytes are the start of a batch that the end of the file
// cuts, as after a power loss.
func isUnfinished(rest []byte) bool {
	if len(rest) < batchHeader {
		return true
	}
	length := 12 + int64(binary.BigEndian.Uint32(rest[8:]))
	return rest[16] == 2 && length > int64(len(rest))
}

// keepDamaged reports damaged bytes and copies them to a folder. followed is set if there is
// a sound batch after them, from the offset to on.
func keepDamaged(
	segment, dir string, at int, bytes []byte, log *slog.Logger, from, to int64, followed bool,
) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%d", filepath.Base(filepath.Dir(segment)), filepath.Base(segment), at)
	if err := datadir.Replace(filepath.Join(dir, name), bytes); err != nil {
		return err
	}

	attrs := []any{"file", segment, "from_byte", at, "bytes", len(bytes), "from_offset", from,
		"kept_in", filepath.Join(dir, name)}
	if followed {
		attrs = append(attrs, "to_offset", to)
	}
	log.Error("a segment of the embedded Kafka is damaged; skipped its records, audits repair their events", attrs...)
	return nil
}

// rewrite replaces a segment by its sound batches. before is the number of those before the
// first damage.
func rewrite(segment string, data []byte, sound []batch, before int) error {
	var kept []byte
	for _, b := range sound {
		kept = append(kept, data[b.at:b.end]...)
	}
	if err := datadir.Replace(segment, kept); err != nil {
		return err
	}

	// If we stop here, the index has too many entries, and kfake cuts it.
	path := strings.TrimSuffix(segment, ".dat") + ".idx"
	index, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	// Without an index, kfake uses defaults.
	entries := slices.Collect(slices.Chunk(index, indexEntry))
	after := len(sound) - before
	if len(entries) < len(sound) || len(entries[len(entries)-1]) < indexEntry {
		return os.Remove(path)
	}

	// Keep the entries from both ends: those of the damaged batches are between them.
	sides := append(slices.Clone(entries[:before]), entries[len(entries)-after:]...)
	return datadir.Replace(path, slices.Concat(sides...))
}

// File returns the segment file that has a record, for a message to the operator, or an
// empty text if it is unknown.
func File(dir, topic string, partition int, offset int64) string {
	folder := filepath.Join(dir, "log", "partitions", fmt.Sprintf("%s-%d", url.PathEscape(topic), partition))
	base, found := segmentOf(folder, offset)
	if !found {
		return ""
	}
	return filepath.Join(folder, strconv.FormatInt(base, 10)+".dat")
}
