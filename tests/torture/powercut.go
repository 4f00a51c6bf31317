package torture

// Scenario cut: as kill, and what was not fsynced is gone. The picture that faults.c keeps becomes the data directory.
//
// A file whose name was not fsynced is not there; a file whose name was and whose bytes were not is empty. In every
// second cut the last write is torn: a part of the bytes that were not fsynced is there, or zeros stand for them.
// Every second directory is fresh when the store first starts; the others have the store's own directories, durably.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	cutsPerFresh   = 6
	cutsPerSettled = 20
	// syncTime is a disk's: it leaves time for a cut between a write and the end of its fsync.
	syncTime = time.Millisecond
)

// PowerCut cuts the power so many times, and checks after each.
func PowerCut(ctx context.Context, run *Run, cuts int) (*Report, error) {
	report, random := run.report("cut"), run.random(2)
	for fresh := true; report.Rounds < cuts && ctx.Err() == nil; fresh = !fresh {
		dir, err := run.dir("cut")
		if err != nil {
			return nil, err
		}
		dataDir, most := filepath.Join(dir, "fresh"), cutsPerFresh
		if !fresh {
			dataDir, most = filepath.Join(dir, "settled"), cutsPerSettled
			if err := settle(dataDir); err != nil {
				return nil, err
			}
		}
		if err := cutDir(ctx, run, report, random, dataDir, min(most, cuts-report.Rounds)); err != nil {
			return nil, err
		}
	}
	return report.done(), nil
}

// settle makes the directories that a store has.
func settle(dataDir string) error {
	return errors.Join(os.MkdirAll(filepath.Join(dataDir, "wal"), 0o755), os.Mkdir(filepath.Join(dataDir, "segments"), 0o755))
}

func cutDir(ctx context.Context, run *Run, report *Report, random *rand.Rand, dataDir string, cuts int) error {
	var ledger Ledger
	failed := len(report.Failures)
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return err
	}
	for round := range cuts {
		report.Rounds++
		written, err := cutOnce(ctx, run, report, random, dataDir, round, &ledger)
		if err != nil {
			return err
		}
		ledger.add(written)
		if len(report.Failures) > failed || ctx.Err() != nil {
			break
		}
	}
	if len(report.Failures) == failed {
		final(ctx, run, report, &ledger, dataDir)
	}
	return removeUnlessFailed(run, report, filepath.Dir(dataDir), failed)
}

func cutOnce(ctx context.Context, run *Run, report *Report, random *rand.Rand, dataDir string, round int, ledger *Ledger) ([]Written, error) {
	faults := Faults{Shadow: dataDir + ".durable", SyncTime: syncTime}
	if err := beginShadow(dataDir, faults.Shadow); err != nil {
		return nil, err
	}
	store, err := run.Spawn(dataDir, smallFlushes, run.env(dataDir, faults))
	if err != nil {
		return nil, err
	}
	var written []Written
	if random.IntN(startsKilled) == 0 {
		pause(ctx, millis(random, 0, 300))
		store.Kill()
	} else {
		if err := store.awaitReady(); err != nil {
			report.fail("%s: after cut %d: %v", filepath.Base(dataDir), report.Rounds-1, err)
			return nil, nil
		}
		checkLinesOnce(ctx, report, store, ledger, fmt.Sprintf("%s: after cut %d", filepath.Base(dataDir), report.Rounds-1))
		load := store.load(ctx, int64(round), 0, random)
		pause(ctx, millis(random, 20, 700))
		store.die(ctx, random)
		written = load.Wait()
		refusedNone(report, written)
	}
	return written, endShadow(dataDir, faults.Shadow, random)
}

// beginShadow makes the picture of a directory all of which is durable.
func beginShadow(dataDir, shadow string) error {
	if err := os.RemoveAll(shadow); err != nil {
		return err
	}
	if err := os.Mkdir(shadow, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(dataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		object, err := objectName(path)
		if err != nil {
			return err
		}
		whole := filepath.Join(shadow, object)
		parent, err := objectName(filepath.Dir(path))
		if err != nil {
			return err
		}
		name := filepath.Join(shadow, parent, entry.Name())
		if entry.IsDir() {
			err = os.Mkdir(whole, 0o755)
			if err == nil && path != dataDir {
				err = os.Symlink(object, name)
			}
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(whole, content, 0o644)
		}
		if err == nil {
			err = os.Link(whole, name)
		}
		return err
	})
}

// objectName is what faults.c calls the inode of a path that was there before the process.
func objectName(path string) (string, error) {
	found, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("o%d", found.Sys().(*syscall.Stat_t).Ino), nil
}

// endShadow puts what is durable in the place of the data directory.
func endShadow(dataDir, shadow string, random *rand.Rand) error {
	root, err := objectName(dataDir)
	if err != nil {
		return err
	}
	after := dataDir + ".after"
	if err := unfold(shadow, root, after); err != nil {
		return err
	}
	if random.IntN(2) == 0 {
		if err := tear(dataDir, after, random); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(dataDir), os.RemoveAll(shadow), os.Rename(after, dataDir))
}

func unfold(shadow, object, target string) error {
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(shadow, object))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a directory with a durable name that was itself never fsynced
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		kept, to := filepath.Join(shadow, object, entry.Name()), filepath.Join(target, entry.Name())
		if entry.Type() == fs.ModeSymlink {
			inside, err := os.Readlink(kept)
			if err != nil {
				return err
			}
			if err := unfold(shadow, inside, to); err != nil {
				return err
			}
			continue
		}
		content, err := os.ReadFile(kept)
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tear lets a random part of an unsynced end reach the disk, in one of the files that have such an end.
func tear(before, after string, random *rand.Rand) error {
	type torn struct {
		path string
		tail []byte
	}
	var found []torn
	err := filepath.WalkDir(after, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".sqlite-shm" {
			return err
		}
		below, err := filepath.Rel(after, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		real, err := os.ReadFile(filepath.Join(before, below))
		if err == nil && int64(len(real)) > info.Size() {
			found = append(found, torn{path, real[info.Size():]})
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return err
	}
	chosen := found[random.IntN(len(found))]
	tail := chosen.tail[:random.IntN(len(chosen.tail)+1)]
	if random.IntN(3) == 0 {
		// The size came through and the last blocks did not.
		clear(tail[random.IntN(len(tail)+1):])
	}
	file, err := os.OpenFile(chosen.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.Write(tail)
	return errors.Join(err, file.Close())
}
