package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// machine is where and when a run was made.
type machine struct {
	cpu, memory, kernel, load, commit string
	at                                time.Time
}

func describeMachine() machine {
	m := machine{at: time.Now().UTC(), commit: commit()}
	m.cpu = fmt.Sprintf("%s, %d cores", valueIn("/proc/cpuinfo", "model name"), runtime.NumCPU())
	var kilobytes int64
	fmt.Sscan(valueIn("/proc/meminfo", "MemTotal"), &kilobytes)
	m.memory = fmt.Sprintf("%.1f GiB", float64(kilobytes)/(1<<20))
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.kernel = strings.TrimSpace(string(release))
	average, _ := os.ReadFile("/proc/loadavg")
	m.load = strings.TrimSpace(string(average))
	return m
}

// isBusy tells whether others were computing in the minute before the run.
func (m machine) isBusy() bool {
	var lastMinute float64
	fmt.Sscan(m.load, &lastMinute)
	return lastMinute > 0.5
}

// valueIn reads `name : value` from a file of such lines.
func valueIn(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		if key, value, found := strings.Cut(string(line), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// commit is the checked-out one, with a plus sign when files differ from it.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	short := strings.TrimSpace(string(head))
	if exec.Command("git", "diff", "--quiet", "HEAD").Run() != nil {
		short += "+"
	}
	return short
}

// dropPageCache tells whether it was allowed to.
func dropPageCache() bool {
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200) == nil
}
