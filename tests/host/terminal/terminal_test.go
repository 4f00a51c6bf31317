package terminal

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var escapes = regexp.MustCompile("\x1b(\\[[0-9;]*[A-Za-z]|\\]8;;[^\x1b]*\x1b\\\\)")

func draw(plain bool) string {
	var out bytes.Buffer
	screen := &Screen{out: &out, Plain: plain, zone: time.UTC}
	start := time.Date(2026, 11, 20, 11, 57, 0, 0, time.UTC)
	times := make([]time.Time, 31)
	counts := make([]float64, len(times))
	holes := make([]float64, len(times))
	for i := range times {
		times[i] = start.Add(time.Duration(i) * time.Minute)
		counts[i] = float64(i * 1000)
		holes[i] = math.NaN()
		if i%2 == 0 {
			holes[i] = float64(i)
		}
	}
	screen.Title("Newest error lines", strings.Repeat("note ", 8))
	screen.Rows([]Row{{
		Time: start, Level: "error", Service: strings.Repeat("a-long-service-name", 3), Text: strings.Repeat("a text without an end ", 9) + "\x1b[31m\n",
		LinkTitle: "View trace", LinkTo: "Jaeger", LinkURL: "http://localhost:16686/trace/4bf92f3577b34da6a3ce929d0e0e4736",
	}})
	screen.Title("Volume by level", "")
	screen.StackedBars([]Stack{{"error", counts}, {"warn", counts}, {"info", counts}, {"debug", counts}, {"trace", counts}, {"unknown", counts}}, times)
	screen.Title("p95 by service", "")
	screen.Curves([]Curve{{"payments-api", counts}, {"holes", holes}, {"nothing", []float64{math.NaN()}}, {"empty", nil}}, "ms")
	screen.Status("a line that goes away")
	screen.EndStatus()
	return out.String()
}

func TestPlainHasNoEscapesAndFits(t *testing.T) {
	text := draw(true)
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\r") {
		t.Errorf("an escape or a return on a plain screen: %q", text)
	}
	if strings.Contains(text, "goes away") {
		t.Error("a status line on a plain screen stays there")
	}
	for _, line := range strings.Split(text, "\n") {
		if width := utf8.RuneCountInString(line); width > Width {
			t.Errorf("%d columns: %q", width, line)
		}
	}
}

func TestColourChangesNothingButColour(t *testing.T) {
	coloured := escapes.ReplaceAllString(draw(false), "")
	coloured = strings.NewReplacer("\r  a line that goes away", "", "\r", "").Replace(coloured)
	if plain := draw(true); coloured != plain {
		t.Errorf("without its escapes the coloured screen is\n%s\nand the plain one\n%s", coloured, plain)
	}
}

func TestNumber(t *testing.T) {
	for number, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := Number(number); got != want {
			t.Errorf("%v is %q, want %q", number, got, want)
		}
	}
}

func TestSparkline(t *testing.T) {
	got := sparkline([]float64{0, 1, 2, 4, math.NaN(), 8})
	if want := "▁▂▃▅ █" + strings.Repeat(" ", 24); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
