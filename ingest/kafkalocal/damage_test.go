package kafkalocal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/kafka"
	"github.com/tenantwatch/tenantwatch/ingest/kafkalocal"
	"github.com/tenantwatch/tenantwatch/schema"
)

// logBuffer is a log that several may write to.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// damaged is a broker with records in one partition, whose files are to be damaged.
type damaged struct {
	t      *testing.T
	dir    string
	log    *logBuffer
	broker *kafkalocal.Broker
	client *kafka.Client
	topic  string
	found  []kafka.Damage // by the client
}

func newDamaged(t *testing.T) *damaged {
	d := &damaged{t: t, dir: t.TempDir(), log: &logBuffer{}, topic: schema.NewTopics("t.").Events}
	d.start()
	return d
}

func (d *damaged) start() {
	d.t.Helper()
	log := slog.New(slog.NewTextHandler(d.log, nil))
	var err error
	if d.broker, err = kafkalocal.Start(d.dir, log); err != nil {
		d.t.Fatal(err)
	}
	d.client = kafka.NewClient(kafka.Config{Brokers: d.broker.Addrs(), Log: log, Damaged: func(damage kafka.Damage) { d.found = append(d.found, damage) }})
	topics := schema.NewTopics("t.")
	if _, err := d.client.EnsureTopics(d.t.Context(), topics.All(kafkalocal.SegmentBytes)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *damaged) stop() {
	d.client.Close()
	d.broker.Close()
}

// produce writes records from..to, ten at a time, of which each has its number.
func (d *damaged) produce(from, to int) {
	d.t.Helper()
	producer := d.client.NewProducer(d.topic)
	defer producer.Close()
	for ; from < to; from += 10 {
		var records []schema.Record
		for i := range 10 {
			// Text that compresses badly, so that damage hits what was said.
			text := fmt.Sprintf(`{"n":%d,"x":"%x"}`, from+i, rand.New(rand.NewPCG(uint64(from+i), 1)).Uint64())
			records = append(records, schema.Record{Key: []byte("acme"), Value: []byte(text)})
		}
		if err := producer.Produce(d.t.Context(), records, nil); err != nil {
			d.t.Fatal(err)
		}
	}
}

// segment is the newest segment of the partition that has the records.
func (d *damaged) segment() string {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "log", "partitions", d.topic+"-*", "*.dat"))
	if err != nil || len(files) != 1 {
		d.t.Fatalf("segments: %v, %v", files, err)
	}
	return files[0]
}

// overwrite puts random bytes somewhere into the segment, as a bad disk does.
func (d *damaged) overwrite(random *rand.Rand, length int) {
	d.t.Helper()
	file, err := os.OpenFile(d.segment(), os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	noise := make([]byte, length)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	if _, err := file.WriteAt(noise, random.Int64N(info.Size()-int64(length))); err != nil {
		d.t.Fatal(err)
	}
}

// read returns the numbers of all records up to the last one, which must be sound.
func (d *damaged) read(last int) []int {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	done, stop := context.WithCancel(ctx)
	var got []int
	err := d.client.Consume(done, d.topic, fmt.Sprint("group ", time.Now().UnixNano()), func(ctx context.Context, p *kafka.Partition) error {
		for {
			r, err := p.Fetch(ctx)
			if err != nil {
				return nil
			}
			var n int
			var x uint64
			if _, err := fmt.Sscanf(string(r.Value), `{"n":%d,"x":"%x"}`, &n, &x); err != nil || x != rand.New(rand.NewPCG(uint64(n), 1)).Uint64() {
				d.t.Errorf("offset %d: a record that was never produced: %.80q", r.Offset, r.Value)
			}
			if got = append(got, n); n == last {
				stop()
				return nil
			}
		}
	})
	stop()
	if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
		d.t.Fatalf("the last record does not come; %d came, %v\n%s", len(got), err, d.log)
	}
	return got
}

// check compares what was read with what must be there: all but some records in a row.
func (d *damaged) check(name string, got []int, all, most int) {
	d.t.Helper()
	missing := 0
	for n := range all {
		if !slices.Contains(got, n) {
			missing++
		}
	}
	if missing == 0 || missing > most {
		d.t.Errorf("%s: %d records are missing, want 1 to %d", name, missing, most)
	}
	if !slices.IsSorted(got) {
		d.t.Errorf("%s: records out of order", name)
	}
}

// seeds are those of the damages that are tried.
func seeds() uint64 {
	if testing.Short() {
		return 4
	}
	return 12
}

// TestDamageWhileRunning has random bytes in a segment of a running broker. What is sound
// is read, also behind it; nothing else is; and the damage is named.
func TestDamageWhileRunning(t *testing.T) {
	const all = 400
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			d := newDamaged(t)
			defer d.stop()
			d.produce(0, all-10)
			random := rand.New(rand.NewPCG(seed, 2))
			length := 1 + int(seed*seed)*10 // up to several batches
			d.overwrite(random, length)
			d.produce(all-10, all)
			got := d.read(all - 1)
			if len(got) == all && len(d.found) == 0 {
				return // bytes of a batch that mean nothing to a reader, such as its leader's epoch
			}
			d.check("read", got, all, 20+length/20)
			if len(d.found) == 0 || d.found[0].From >= d.found[0].To || d.found[0].Topic != d.topic {
				t.Errorf("damage: %+v", d.found)
			}
			if file := kafkalocal.File(d.dir, d.topic, d.found[0].Partition, d.found[0].From); file != d.segment() {
				t.Errorf("file %q, want %q", file, d.segment())
			}
			if lines := strings.Count(d.log.String(), "\n"); lines > 10 {
				t.Errorf("%d lines in the log:\n%s", lines, d.log)
			}
		})
	}
}

// TestDamageAtRest has random bytes in a segment while the broker is down, which names and
// mends it at its start and keeps what is behind it.
func TestDamageAtRest(t *testing.T) {
	const all = 400
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			d := newDamaged(t)
			d.produce(0, all-10)
			d.stop()
			random := rand.New(rand.NewPCG(seed, 3))
			length := 1 + int(seed*seed)*10
			d.overwrite(random, length)
			d.start()
			d.produce(all-10, all)
			d.check("read", d.read(all-1), all, 20+length/20)
			if !strings.Contains(d.log.String(), "is damaged") && !strings.Contains(d.log.String(), "unfinished batch") ||
				!strings.Contains(d.log.String(), d.segment()) || !strings.Contains(d.log.String(), "from_offset=") {
				t.Errorf("the log does not name it:\n%s", d.log)
			}
			kept, err := os.ReadDir(filepath.Join(d.dir, "damaged"))
			if err != nil || len(kept) == 0 {
				t.Errorf("nothing is kept of it: %v", err)
			}

			// The next start finds nothing any more, and the same records.
			d.stop()
			d.log = &logBuffer{}
			d.start()
			defer d.stop()
			d.check("again", d.read(all-1), all, 20+length/20)
			if strings.Contains(d.log.String(), "damaged") {
				t.Errorf("found again:\n%s", d.log)
			}
		})
	}
}

// TestFetchUnderDeadlines fetches with deadlines that end just when records come: none is
// dropped with them.
func TestFetchUnderDeadlines(t *testing.T) {
	const all = 3000
	d := newDamaged(t)
	defer d.stop()
	d.produce(0, all)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	next := 0 // one partition has all of them
	err := d.client.Consume(ctx, d.topic, "deadlines", func(ctx context.Context, p *kafka.Partition) error {
		random := rand.New(rand.NewPCG(1, 4))
		for ctx.Err() == nil {
			short, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(60))*time.Microsecond)
			r, err := p.Fetch(short)
			cancel()
			if err != nil {
				continue
			}
			if !strings.HasPrefix(string(r.Value), fmt.Sprintf(`{"n":%d,`, next)) {
				t.Errorf("got %.40s, want number %d", r.Value, next)
				stop()
			}
			if next++; next == all {
				stop()
			}
		}
		return nil
	})
	if next != all {
		t.Errorf("%d records, want %d: %v", next, all, err)
	}
}
