package main

import (
	"strings"
	"testing"
	"time"
)

// Bodies that a store refuses are found when they are sent; here only that they are made, and hold every line.
func TestBodiesHoldTheirLines(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, way := range append([]way{lokiPush}, ways...) {
		one, two := way.encode([]line{{"level=info one", at}}), way.encode([]line{{"level=info one", at}, {"level=info two", at}})
		if len(two) <= len(one) {
			t.Errorf("%s: a body of two lines has %d bytes, one of one %d", way.name, len(two), len(one))
		}
	}
}

func TestFormatsAreLinesThatDiffer(t *testing.T) {
	for _, format := range formats {
		body, lines := format.body(10_000)
		split := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if len(split) != lines || lines < 10 {
			t.Errorf("%s: %d lines are told, %d are there", format.name, lines, len(split))
		}
		if split[0] == split[1] {
			t.Errorf("%s: the first two lines are the same: %s", format.name, split[0])
		}
	}
}
