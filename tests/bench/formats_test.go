package main

import (
	"strings"
	"testing"
)

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
