package torture

// Scenario damage: bytes of segments and of the catalog are flipped, cut off or gone. It records what the store does,
// and fails only on what no store may do: hang, die while it answers, or refuse to start without a word.
// What the store shall do beyond that is in damage_judge.go.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const damagedLines = 3000

// outcome is what a damaged store does, from best to worst.
type outcome string

const (
	right   outcome = "the right answer"
	noticed outcome = "an answer with a notice"
	failed  outcome = "a query that fails with a message"
	refused outcome = "a start that is refused with a message"
	partial outcome = "LESS, WITHOUT A WORD"
	wrong   outcome = "A WRONG ANSWER"
	died    outcome = "A PROCESS THAT DIED"
)

// damage is one way to hurt a data directory.
type damage struct {
	name string
	part part
	do   func(dir string, random *rand.Rand) error
}

// part is what of a data directory is hurt.
type part int

const (
	segment part = iota
	index
	catalog
)

// finding is what came of a damage.
type finding struct {
	damage   damage
	outcome  outcome
	message  string
	reported bool // in /metrics
}

var damages = []damage{
	{"a byte of a data page flipped", segment, inSegment(func(content []byte, random *rand.Rand) []byte {
		content[4+random.IntN(footerStart(content)-4)] ^= 1 << random.IntN(8)
		return content
	})},
	{"a byte of a footer flipped", segment, inSegment(func(content []byte, random *rand.Rand) []byte {
		start := footerStart(content)
		content[start+random.IntN(len(content)-8-start)] ^= 1 << random.IntN(8)
		return content
	})},
	{"a segment cut in half", segment, inSegment(func(content []byte, _ *rand.Rand) []byte { return content[:len(content)/2] })},
	{"a segment emptied", segment, inSegment(func([]byte, *rand.Rand) []byte { return nil })},
	{"a segment deleted", segment, func(dir string, random *rand.Rand) error {
		path, err := someSegment(dir, random)
		return errors.Join(err, os.Remove(path))
	}},
	{"a byte of an index flipped", index, inIndex(func(content []byte, random *rand.Rand) []byte {
		content[random.IntN(len(content))] ^= 1 << random.IntN(8)
		return content
	})},
	{"an index emptied", index, inIndex(func([]byte, *rand.Rand) []byte { return nil })},
	{"an index deleted", index, func(dir string, random *rand.Rand) error {
		path, err := someSegment(dir, random)
		return errors.Join(err, os.Remove(indexOf(path)))
	}},
	{"the catalog's header overwritten", catalog, inCatalog(func(content []byte, _ *rand.Rand) []byte {
		copy(content, bytes.Repeat([]byte{0x5a}, 100))
		return content
	})},
	{"a page of the catalog overwritten", catalog, inCatalog(func(content []byte, random *rand.Rand) []byte {
		const page = 4096
		at := page * (1 + random.IntN(max(1, len(content)/page-1)))
		for i := at; i < min(at+page, len(content)); i++ {
			content[i] = byte(random.IntN(256))
		}
		return content
	})},
	{"the catalog emptied", catalog, inCatalog(func([]byte, *rand.Rand) []byte { return nil })},
	{"the catalog deleted", catalog, func(dir string, _ *rand.Rand) error { return os.Remove(catalogOf(dir)) }},
}

func catalogOf(dir string) string { return filepath.Join(dir, "catalog.sqlite") }

func segmentsOf(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "segments", "*", "*", "*", "*.parquet"))
}

func someSegment(dir string, random *rand.Rand) (string, error) {
	segments, err := segmentsOf(dir)
	if err != nil || len(segments) == 0 {
		return "", fmt.Errorf("'%s' has no segments: %w", dir, err)
	}
	return segments[random.IntN(len(segments))], nil
}

func rewrite(path string, random *rand.Rand, change func([]byte, *rand.Rand) []byte) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(content, random), 0o644)
}

func inSegment(change func([]byte, *rand.Rand) []byte) func(string, *rand.Rand) error {
	return func(dir string, random *rand.Rand) error {
		path, err := someSegment(dir, random)
		if err != nil {
			return err
		}
		return rewrite(path, random, change)
	}
}

func indexOf(segment string) string { return strings.TrimSuffix(segment, ".parquet") + ".index" }

func inIndex(change func([]byte, *rand.Rand) []byte) func(string, *rand.Rand) error {
	return func(dir string, random *rand.Rand) error {
		path, err := someSegment(dir, random)
		if err != nil {
			return err
		}
		return rewrite(indexOf(path), random, change)
	}
}

func inCatalog(change func([]byte, *rand.Rand) []byte) func(string, *rand.Rand) error {
	return func(dir string, random *rand.Rand) error { return rewrite(catalogOf(dir), random, change) }
}

// footerStart is where a Parquet file's metadata begins: before their length and the magic at the end.
func footerStart(content []byte) int {
	end := content[len(content)-8:]
	return len(content) - 8 - int(uint32(end[0])|uint32(end[1])<<8|uint32(end[2])<<16|uint32(end[3])<<24)
}

// Damage does each damage so many times, and judges by what the store shall do.
func Damage(ctx context.Context, run *Run, each int) (*Report, error) {
	report, random := run.report("damage"), run.random(6)
	sample, ledger, err := makeSegments(ctx, run)
	if err != nil {
		return nil, err
	}
	shown := map[string]bool{}
	for _, damage := range damages {
		for range each {
			if ctx.Err() != nil {
				return report.done(), nil
			}
			report.Rounds++
			dir, err := run.dir("damaged")
			if err != nil {
				return nil, err
			}
			if err := errors.Join(copyDir(sample, dir), damage.do(dir, random)); err != nil {
				return nil, err
			}
			found := tryDamaged(ctx, run, ledger, dir)
			found.damage = damage
			what := fmt.Sprintf("%s: %s", damage.name, found.outcome)
			report.note("%s", what)
			if !shown[what] && found.message != "" {
				report.note("    such as: %s", shortened(found.message))
			}
			shown[what] = true
			if found.outcome == died {
				report.fail("%s: %s: %s", damage.name, found.outcome, found.message)
			} else {
				judge(report, found)
			}
			if err := os.RemoveAll(dir); err != nil {
				return nil, err
			}
		}
	}
	return report.done(), os.RemoveAll(sample)
}

// makeSegments writes lines in some batches and ends the store, which flushes them.
func makeSegments(ctx context.Context, run *Run) (string, *Ledger, error) {
	dir, err := run.dir("segments")
	if err != nil {
		return "", nil, err
	}
	var ledger Ledger
	for part := range int64(3) {
		store, err := run.Start(dir, nil, nil)
		if err != nil {
			return "", nil, err
		}
		written := Written{First: part * damagedLines, End: (part + 1) * damagedLines}
		written.Acknowledged = [][2]int64{{written.First, written.End}}
		answer, err := store.send(ctx, written.First, written.End, part%2 == 0)
		if err != nil || !answer.Good() {
			return "", nil, fmt.Errorf("the sample can't be written: %w: %s", err, answer.Body)
		}
		ledger.add([]Written{written})
		if err := store.Stop(); err != nil {
			return "", nil, err
		}
	}
	return dir, &ledger, nil
}

func tryDamaged(ctx context.Context, run *Run, ledger *Ledger, dir string) finding {
	before, _ := segmentsOf(dir)
	store, err := run.Start(dir, nil, nil)
	if ended := new(Ended); errors.As(err, &ended) {
		if strings.Contains(ended.Log, "panicked") || lastLine(ended.Log) == "" {
			return finding{outcome: died, message: ended.Error()}
		}
		return finding{outcome: refused, message: lastLine(ended.Log)}
	}
	if err != nil {
		return finding{outcome: died, message: err.Error()}
	}
	defer store.Kill()
	rows, answer, err := store.Rows(ctx)
	found := finding{outcome: right}
	counts, shown := ledger.compare(rows)
	switch {
	case answer.Status == 0:
		return finding{outcome: died, message: err.Error() + ": " + store.logTail()}
	case answer.Status == 400:
		found.outcome, found.message = partial, "nothing is left: "+err.Error()
	case err != nil:
		found.outcome, found.message = failed, err.Error()
	case counts.Unsent+counts.Changed+counts.Doubled > 0:
		found.outcome, found.message = wrong, counts.String()+shown
	case noticeOf(answer) != "":
		found.outcome, found.message = noticed, noticeOf(answer)
		found.reported = until(ctx, reportMax, func() bool { return reportsDamage(ctx, store) })
	case counts.Lost > 0:
		found.outcome, found.message = partial, counts.String()
	}
	if after, _ := segmentsOf(dir); len(after) < len(before) {
		found.message += fmt.Sprintf("; %d of %d segment files were removed", len(before)-len(after), len(before))
	}
	return found
}
