package torture

// Scenario full: the disk fills up under load. Writers are refused with a text that says why, queries go on, nothing
// acknowledged is lost; and when space is back, the store works again by itself.
//
// The disk is a small tmpfs; where mounting is not allowed, only faults.c plays the full disk (which is tried anyway).

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	diskBytes = 64 << 20
	fillMax   = 60 * time.Second
	// probesFirst is the first number of the lines that ask whether the disk is full yet.
	probesFirst = int64(1) << 30
	// workMax is how long writing may take to work again; a flush is tried again after 30 s at most.
	workMax = 40 * time.Second
)

// fullSettings keep memory small, so that the disk is what is full.
var fullSettings = []string{"storage.flush_age_max=500ms", "storage.flush_bytes_max=4MiB"}

// FullDisk fills a disk so many times, each in a store of its own.
func FullDisk(ctx context.Context, run *Run, times int) (*Report, error) {
	report, random := run.report("full"), run.random(4)
	for range times {
		for _, mounted := range []bool{true, false} {
			if ctx.Err() != nil {
				return report.done(), nil
			}
			dir, err := run.dir("full")
			if err != nil {
				return nil, err
			}
			if err := fullOnce(ctx, run, report, random, dir, mounted); err != nil {
				return nil, err
			}
		}
	}
	return report.done(), nil
}

// disk is a place that can be made full and be given space again.
type disk struct {
	name    string
	dataDir string
	env     []string
	fill    func() error
	free    func() error
	close   func() error
}

func mountedDisk(dir string) (*disk, error) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		return nil, err
	}
	ballast := filepath.Join(dir, "ballast")
	return &disk{
		name: "tmpfs", dataDir: filepath.Join(dir, "data"),
		fill:  func() error { return fillWith(ballast) },
		free:  func() error { return os.Remove(ballast) },
		close: func() error { return syscall.Unmount(dir, 0) },
	}, nil
}

// fillWith takes all the space that is left.
func fillWith(ballast string) error {
	file, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer file.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = file.Write(block)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

func playedDisk(run *Run, dir string) *disk {
	dataDir, full := filepath.Join(dir, "data"), filepath.Join(dir, "full")
	return &disk{
		name: "layer", dataDir: dataDir, env: run.env(dataDir, Faults{Full: full}),
		fill:  func() error { return os.WriteFile(full, nil, 0o644) },
		free:  func() error { return os.Remove(full) },
		close: func() error { return nil },
	}
}

func fullOnce(ctx context.Context, run *Run, report *Report, random *rand.Rand, dir string, mounted bool) (err error) {
	place := playedDisk(run, dir)
	if mounted {
		if place, err = mountedDisk(dir); err != nil {
			report.note("tmpfs can't be mounted: %v", err)
			return nil
		}
	}
	defer func() { err = errors.Join(err, place.close(), os.RemoveAll(dir)) }()
	report.Rounds++
	store, err := run.Start(place.dataDir, fullSettings, place.env)
	if err != nil {
		return err
	}
	defer func() { store.Kill() }()
	var ledger Ledger
	if err := fillUp(ctx, report, store, &ledger, place, random); err != nil {
		return err
	}
	if _, err := store.Count(ctx); err != nil {
		report.fail("%s: a query fails on a full disk: %v", place.name, err)
	}
	if answer, err := store.Do(ctx, "GET", "/ready", "", nil); err == nil {
		report.note("%s: /ready answers %d on a full disk", place.name, answer.Status)
	}
	if err := place.free(); err != nil {
		return err
	}
	worksAgain(ctx, report, store, &ledger, place)
	checkLinesOnce(ctx, report, store, &ledger, place.name+", with space again")
	store.Kill()
	if panicked := panicOf(store.Log()); panicked != "" {
		report.fail("%s: the store panicked: %s", place.name, panicked)
	}
	if store, err = run.Start(place.dataDir, fullSettings, nil); err != nil {
		report.fail("%s: after a full disk and a kill: %v", place.name, err)
		return nil
	}
	checkLines(ctx, report, store, &ledger, place.name+", started again")
	store.Kill()
	return startFull(run, report, place)
}

// startFull records what a start on a full disk does; it may refuse, with a message.
func startFull(run *Run, report *Report, place *disk) error {
	if err := place.fill(); err != nil {
		return err
	}
	store, err := run.Start(place.dataDir, fullSettings, place.env)
	if ended := new(Ended); errors.As(err, &ended) {
		report.note("%s: a start on a full disk is refused: %s", place.name, lastLine(ended.Log))
		return nil
	}
	if err != nil {
		return err
	}
	report.note("%s: the store starts on a full disk", place.name)
	store.Kill()
	return nil
}

// fillUp writes until the store has refused for a while.
func fillUp(ctx context.Context, report *Report, store *Store, ledger *Ledger, place *disk, random *rand.Rand) error {
	load := store.load(ctx, 0, padMin, random)
	pause(ctx, time.Second)
	if err := place.fill(); err != nil {
		return err
	}
	number := probesFirst
	full := until(ctx, fillMax, func() bool {
		answer, err := store.send(ctx, number, number+1, false)
		ledger.add(tried(number, answer, err))
		number++
		return err != nil || !answer.Good()
	})
	pause(ctx, 2*time.Second)
	written := load.Wait()
	ledger.add(written)
	refused := 0
	for _, one := range written {
		if one.Last != nil {
			report.fail("%s: a writer got no answer: %v", place.name, one.Last)
		}
		for _, refusal := range one.Refused {
			refused++
			said := strings.TrimSpace(refusal.Body)
			if refusal.Status != 503 && refusal.Status != 429 {
				report.fail("%s: a full disk was answered %d: %s", place.name, refusal.Status, said)
			} else if refusal.Status == 503 && !strings.Contains(said, "no space left") {
				report.fail("%s: the refusal does not name the disk: %s", place.name, said)
			}
		}
	}
	if !full || refused == 0 {
		report.fail("%s: nothing was refused (%d bytes)", place.name, diskBytes)
	}
	return nil
}

func tried(n int64, answer Answer, err error) []Written {
	one := Written{First: n, End: n + 1, Last: err}
	if err == nil && answer.Good() {
		one.Acknowledged = [][2]int64{{n, n + 1}}
	}
	return []Written{one}
}

// worksAgain expects that writing and flushing go on without a restart.
func worksAgain(ctx context.Context, report *Report, store *Store, ledger *Ledger, place *disk) {
	started, last := time.Now(), ""
	number := int64(0)
	works := until(ctx, workMax, func() bool {
		answer, err := store.send(ctx, number, number+1, true)
		ledger.add(tried(number, answer, err))
		number++
		last = strings.TrimSpace(answer.Body)
		return err == nil && answer.Good()
	})
	if !works {
		report.fail("%s: space is back and writing still fails after %s: %s", place.name, workMax, last)
		return
	}
	writes := time.Since(started)
	flushes, _ := store.Metric(ctx, "quiver_storage_flushes")
	flushed := until(ctx, workMax, func() bool {
		now, err := store.Metric(ctx, "quiver_storage_flushes")
		return err == nil && now > flushes
	})
	if !flushed {
		report.fail("%s: space is back and no flush was done within %s", place.name, workMax)
		return
	}
	report.note("%s: writes again after %s, flushes again after %s",
		place.name, writes.Round(100*time.Millisecond), time.Since(started).Round(time.Second))
}
