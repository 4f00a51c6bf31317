package torture

// Scenario wal: after a kill the last file of the log is cut at every byte of its last frames, and bits are flipped in
// its tail. The store has to start, with all frames but the damaged one and nothing else, and to tell the loss: file and
// offset in its log, bytes in its metrics.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	walFrames = 24
	cutFrames = 2
	// flipFrames is the tail in which bits are flipped.
	flipFrames = 6
)

// walSample is a killed store whose log holds numbered lines, and where they are.
type walSample struct {
	dir     string
	name    string // of the file, below dir
	content []byte
	frames  []Frame
	ledger  Ledger
	// ends is the first number behind each frame; numbers begin at 0.
	ends []int64
}

// WALDamage cuts at one of every `step` bytes, and flips so many bits.
func WALDamage(ctx context.Context, run *Run, step, flips int) (*Report, error) {
	report, random := run.report("wal"), run.random(5)
	sample, err := makeWALSample(ctx, run, random)
	if err != nil {
		return nil, err
	}
	last := len(sample.content)
	for at := sample.frames[len(sample.frames)-cutFrames].Start + random.IntN(step); at < last && ctx.Err() == nil; at += step {
		if err := sample.try(ctx, run, report, sample.content[:at], at, fmt.Sprintf("cut at %d of %d", at, last)); err != nil {
			return nil, err
		}
	}
	tail := sample.frames[len(sample.frames)-flipFrames].Start
	for range flips {
		if ctx.Err() != nil {
			break
		}
		at, bit := tail+random.IntN(last-tail), random.IntN(8)
		damaged := append([]byte(nil), sample.content...)
		damaged[at] ^= 1 << bit
		if err := sample.try(ctx, run, report, damaged, at, fmt.Sprintf("bit %d of byte %d of %d flipped", bit, at, last)); err != nil {
			return nil, err
		}
	}
	return report.done(), os.RemoveAll(sample.dir)
}

func makeWALSample(ctx context.Context, run *Run, random *rand.Rand) (*walSample, error) {
	dir, err := run.dir("wal")
	if err != nil {
		return nil, err
	}
	sample := &walSample{dir: dir}
	store, err := run.Start(dir, []string{"storage.flush_age_max=1h"}, nil)
	if err != nil {
		return nil, err
	}
	defer store.Kill()
	written := Written{}
	for at := range walFrames {
		from := written.End
		written.End += 1 + random.Int64N(3)
		if answer, err := store.send(ctx, from, written.End, at%2 == 0); err != nil || !answer.Good() {
			return nil, fmt.Errorf("the sample can't be written: %w: %s", err, answer.Body)
		}
		written.Acknowledged = append(written.Acknowledged, [2]int64{from, written.End})
		sample.ends = append(sample.ends, written.End)
	}
	store.Kill()
	sample.ledger.add([]Written{written})
	path, content, err := lastWAL(dir)
	if err != nil {
		return nil, err
	}
	sample.content = content
	if sample.name, err = filepath.Rel(dir, path); err != nil {
		return nil, err
	}
	if sample.frames, err = readWAL(content); err != nil {
		return nil, err
	}
	if len(sample.frames) != walFrames {
		return nil, fmt.Errorf("%d batches one after the other made %d frames", walFrames, len(sample.frames))
	}
	return sample, nil
}

// try starts a store on a copy whose log is `content`, damaged at byte `at`.
func (s *walSample) try(ctx context.Context, run *Run, report *Report, content []byte, at int, what string) error {
	report.Rounds++
	dir, err := run.dir("wal-damaged")
	if err != nil {
		return err
	}
	if err := copyDir(s.dir, dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, s.name), content, 0o644); err != nil {
		return err
	}
	// A frame that the damage meets is lost; those behind it are found again.
	expect, place, lost := Written{}, 0, 0
	for i, frame := range s.frames {
		switch {
		case frame.End <= len(content) && (at < frame.Start || at >= frame.End):
			expect.End = s.ends[i]
			expect.Acknowledged = append(expect.Acknowledged, s.ledger.written[0].Acknowledged[i])
		case frame.Start < len(content):
			place, lost = frame.Start, lost+min(frame.End, len(content))-frame.Start
		}
	}
	failed := len(report.Failures)
	s.judge(ctx, run, report, dir, expect, place, lost, what)
	return removeUnlessFailed(run, report, dir, failed)
}

func (s *walSample) judge(ctx context.Context, run *Run, report *Report, dir string, kept Written, place, lost int, what string) {
	store, err := run.Start(dir, []string{"storage.flush_age_max=1h"}, nil)
	if err != nil {
		report.fail("%s: %v", what, err)
		return
	}
	defer store.Kill()
	expect := Ledger{}
	expect.add([]Written{kept})
	checkLines(ctx, report, store, &expect, what)
	told, err := store.Metric(ctx, "quiver_storage_wal_lost_bytes")
	if err != nil || told != float64(lost) {
		report.fail("%s: quiver_storage_wal_lost_bytes is %v, %d bytes are lost (%v)", what, told, lost, err)
	}
	warned := lineWith(store.Log(), filepath.Base(s.name))
	if lost > 0 && (!strings.Contains(store.Log(), s.name) || !strings.Contains(warned, strconv.Itoa(place))) {
		report.fail("%s: the log does not tell file and offset %d: %s", what, place, lastLine(store.logTail()))
	}
}
