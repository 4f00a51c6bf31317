package records

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"testing"
	"time"
)

func options(count int64) Options {
	return Options{Seed: 1, Records: count, End: time.Date(2026, 11, 19, 0, 0, 0, 0, time.UTC), Span: 24 * time.Hour}
}

// firstRecordsHash changes when the data does: then figures of earlier runs can't be compared with later ones.
const firstRecordsHash = 0x1d95a67c76a34f16

func TestTheSameRecordsEveryTime(t *testing.T) {
	hash := fnv.New64a()
	generator, record := New(options(100_000)), Record{}
	for generator.Next(&record) {
		hash.Write(record.Line)
		hash.Write([]byte{'\n'})
	}
	if hash.Sum64() != firstRecordsHash {
		t.Errorf("hash of the first records is %#x, not %#x", hash.Sum64(), uint64(firstRecordsHash))
	}
}

func TestSharesAndTokens(t *testing.T) {
	const count = 200_000
	byLevel, byService, traces := map[string]int{}, map[string]int{}, map[string]int{}
	var rare, absent, declined, timedOut, microservices, bytesAll int
	var before int64
	generator, record := New(options(count)), Record{}
	for generator.Next(&record) {
		if record.TimeNs <= before {
			t.Fatalf("time %d does not rise", record.TimeNs)
		}
		before = record.TimeNs
		byService[record.Service]++
		bytesAll += len(record.Line)
		if len(record.TraceID) > 0 {
			microservices++
			byLevel[record.Level]++
			traces[string(record.TraceID)]++
		}
		for token, counter := range map[string]*int{
			RareToken: &rare, AbsentToken: &absent, "declin": &declined, "connection timed": &timedOut,
		} {
			if bytes.Contains(record.Line, []byte(token)) {
				*counter++
			}
		}
	}
	if rare != RareCount || absent != 0 {
		t.Errorf("%d rare and %d absent tokens", rare, absent)
	}
	if len(byService) != 28 {
		t.Errorf("%d services", len(byService))
	}
	within := func(what string, value, of, low, high float64) {
		if share := value / of; share < low || share > high {
			t.Errorf("%s: %.4f is not within %.4f and %.4f", what, share, low, high)
		}
	}
	within("microservices", float64(microservices), count, 0.69, 0.71)
	for i, level := range levels {
		want := float64(levelShares[i]) / 100
		within(level, float64(byLevel[level]), float64(microservices), want*0.93, want*1.07)
	}
	within("lines of a trace", float64(microservices), float64(len(traces)), 6, 7)
	within("declin", float64(declined), count, 0.003, 0.02)
	within("connection timed", float64(timedOut), count, 0.003, 0.02)
	within("bytes of a line", float64(bytesAll), count, 345, 375)
	for trace, lines := range traces {
		if lines > 12 {
			t.Errorf("trace %s has %d lines", trace, lines)
		}
	}
}

func TestLinesAreJSON(t *testing.T) {
	generator, record := New(options(5_000)), Record{}
	for generator.Next(&record) {
		var fields map[string]any
		if err := json.Unmarshal(record.Line, &fields); err != nil {
			t.Fatalf("%s: %v", record.Line, err)
		}
		at, err := time.Parse(time.RFC3339Nano, fields["time"].(string))
		if err != nil || at.UnixNano() != record.TimeNs {
			t.Fatalf("%s: time is %v, not %d (%v)", record.Line, at, record.TimeNs, err)
		}
		if fields["service"] != record.Service || (record.Level != "" && fields["level"] != record.Level) {
			t.Fatalf("%s: not %q, %q", record.Line, record.Service, record.Level)
		}
		if len(record.TraceID) == 0 && fields["msg"] != string(record.Plain) {
			t.Fatalf("%s: message is not %q", record.Line, record.Plain)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	generator, record := New(options(int64(1)<<30)), Record{}
	total := 0
	for b.Loop() {
		generator.Next(&record)
		total += len(record.Line)
	}
	b.SetBytes(int64(total / b.N))
}
