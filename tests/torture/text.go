package torture

// Looking for words in logs and messages.

import (
	"regexp"
	"strings"
)

const shownMax = 400

var (
	temporaryDir = regexp.MustCompile(`/[^ '"]*quiver-torture-\d+/([a-z-]+)-\d+`)
	segmentName  = regexp.MustCompile(`default/[^ '"]*\.parquet`)
)

// withoutNames makes texts of different rounds equal, so that they can be counted.
func withoutNames(text string) string {
	return segmentName.ReplaceAllString(temporaryDir.ReplaceAllString(text, "$1"), "SEGMENT")
}

// lineWith is the first line that has a word, cut to what fits a report.
func lineWith(text, word string) string {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, word) {
			return shortened(line)
		}
	}
	return ""
}

// panicOf is where a process panicked and why; "" when it did not.
func panicOf(log string) string {
	_, panicked, found := strings.Cut(log, "panicked at ")
	if !found {
		return ""
	}
	lines := strings.SplitN(panicked, "\n", 3)
	return shortened(strings.Join(lines[:min(len(lines), 2)], " "))
}

func shortened(text string) string { return text[:min(len(text), shownMax)] }

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
