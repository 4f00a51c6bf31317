package torture

// Looking for words in logs and messages.

import (
	"strconv"
	"strings"
)

func decimal(n int) string { return strconv.Itoa(n) }

// lineWith is the first line that has a word, cut to what fits a report.
func lineWith(text, word string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, word) {
			return line[:min(len(line), 300)]
		}
	}
	return ""
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
