// Package terminal draws what Grafana's panels show as text of 100 columns: log lines, stacked bars, sparklines.
//
// It asks nothing and knows no plugin. Invariant: with Plain no escape sequence is written, and every figure that
// colour tells is told by glyph or word too.
package terminal

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Width is what every line fits into.
const Width = 100

// Colour is an ANSI colour.
type Colour string

// Colours, as Grafana gives them to levels.
const (
	Dim       Colour = "2"
	Bold      Colour = "1"
	Red       Colour = "31"
	Green     Colour = "32"
	Yellow    Colour = "33"
	Blue      Colour = "34"
	Purple    Colour = "35"
	Cyan      Colour = "36"
	Grey      Colour = "90"
	BrightRed Colour = "91"
)

// Screen is where one draws.
type Screen struct {
	out   io.Writer
	Plain bool
	zone  *time.Location
}

// New is a screen on the file; it is plain when the file is no terminal or NO_COLOR is set (no-color.org).
func New(file *os.File) *Screen {
	plain := !term.IsTerminal(int(file.Fd())) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"
	return &Screen{out: file, Plain: plain, zone: time.Local}
}

// Paint colours a text.
func (s *Screen) Paint(colour Colour, text string) string {
	if s.Plain || text == "" {
		return text
	}
	return "\x1b[" + string(colour) + "m" + text + "\x1b[0m"
}

// Line writes a line.
func (s *Screen) Line(format string, arguments ...any) {
	fmt.Fprintln(s.out, strings.TrimRight(fmt.Sprintf(format, arguments...), " "))
}

// Status writes a line that the next one replaces; nothing on a plain screen, for a pipe keeps every one.
func (s *Screen) Status(format string, arguments ...any) {
	if !s.Plain {
		fmt.Fprintf(s.out, "\r\x1b[K  "+format, arguments...)
	}
}

// EndStatus takes the status line away.
func (s *Screen) EndStatus() {
	if !s.Plain {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}

// Title heads a panel, with a note at the right.
func (s *Screen) Title(title, note string) {
	if note != "" {
		note = " " + note + " ─"
	}
	rule := Width - 4 - utf8.RuneCountInString(title) - utf8.RuneCountInString(note)
	s.Line("")
	s.Line("%s %s %s", s.Paint(Grey, "──"), s.Paint(Bold, title), s.Paint(Grey, strings.Repeat("─", max(rule, 1))+note))
}

// Cut shortens a text to so many characters.
func Cut(text string, width int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' ' // a log line must not steer the terminal
		}
		return r
	}, text)
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// Pad fills a text up to a width.
func Pad(text string, width int) string {
	text = Cut(text, width)
	return text + strings.Repeat(" ", width-utf8.RuneCountInString(text))
}

var levelColours = map[string]Colour{
	"fatal": Purple, "error": Red, "warn": Yellow, "info": Green, "debug": Blue, "trace": Cyan, "unknown": Grey,
}

// LevelColour is the colour of a level.
func LevelColour(level string) Colour {
	if colour, ok := levelColours[level]; ok {
		return colour
	}
	return Grey
}

// Row is a log line.
type Row struct {
	Time      time.Time
	Level     string
	Service   string
	Text      string
	LinkTitle string // empty: no trace
	LinkURL   string
	LinkTo    string // name of the data source
}

// Rows draws log lines, each with its trace link under it.
func (s *Screen) Rows(rows []Row) {
	for _, row := range rows {
		level := row.Level
		s.Line("  %s %s %s %s",
			s.Paint(Grey, row.Time.In(s.zone).Format("15:04:05.000")),
			s.Paint(LevelColour(level), Pad(strings.ToUpper(level), 5)),
			s.Paint(Cyan, Pad(row.Service, 20)),
			Cut(row.Text, Width-43))
		if row.LinkTitle != "" {
			s.Line("  %s %s %s", strings.Repeat(" ", 11), s.Paint(Grey, "↳ "+row.LinkTitle+" in "+row.LinkTo),
				s.Paint(Blue, s.link(row.LinkURL)))
		}
	}
}

// link makes an address clickable where the terminal can (OSC 8).
func (s *Screen) link(url string) string {
	if s.Plain || url == "" {
		return url
	}
	return "\x1b]8;;" + url + "\x1b\\" + url + "\x1b]8;;\x1b\\"
}

// Stack is one level's counts over time.
type Stack struct {
	Name   string
	Counts []float64
}

// glyphs tell the stacks apart without colour; the last one serves all others.
var glyphs = []string{"█", "▓", "▒", "░", "·"}

const barRows = 12 // enough that the errors of an incident fill a cell of their own

// StackedBars draws counts over time, the first stack lowest, with the times under them.
func (s *Screen) StackedBars(stacks []Stack, times []time.Time) {
	columns := len(times)
	if columns == 0 {
		return
	}
	width := max(1, (Width-12)/columns)
	totals := make([]float64, columns)
	highest := 0.0
	for column := range columns {
		for _, stack := range stacks {
			totals[column] += stack.Counts[column]
		}
		highest = max(highest, totals[column])
	}
	for row := barRows; row >= 1; row-- {
		label := ""
		if row == barRows {
			label = Number(highest)
		} else if row == barRows/2 {
			label = Number(highest / 2)
		}
		var line strings.Builder
		for column := range columns {
			// The cell's middle decides whose it is.
			line.WriteString(s.cell(stacks, column, (float64(row)-0.5)/barRows*highest, width))
		}
		s.Line("  %s %s", s.Paint(Grey, fmt.Sprintf("%6s ┤", label)), line.String())
	}
	s.Line("  %s", s.Paint(Grey, "       └"+strings.Repeat("─", width*columns+1)))
	s.Line("  %s", s.Paint(Grey, "         "+axis(times, width, s.zone)))
	s.legend(stacks)
}

// legend names the stacks and their totals, on as many lines as it takes.
func (s *Screen) legend(stacks []Stack) {
	const indent = 11
	line, used := "", indent
	for i, stack := range stacks {
		total := 0.0
		for _, count := range stack.Counts {
			total += count
		}
		name := glyphs[min(i, len(glyphs)-1)] + " " + stack.Name
		width := utf8.RuneCountInString(name+Number(total)) + 4
		if used+width > Width {
			s.Line("%s%s", strings.Repeat(" ", indent), line)
			line, used = "", indent
		}
		line, used = line+s.Paint(LevelColour(stack.Name), name)+" "+Number(total)+"   ", used+width
	}
	s.Line("%s%s", strings.Repeat(" ", indent), strings.TrimRight(line, " "))
}

func (s *Screen) cell(stacks []Stack, column int, height float64, width int) string {
	below := 0.0
	for i, stack := range stacks {
		below += stack.Counts[column]
		if height <= below && stack.Counts[column] > 0 {
			gap := min(1, width-1)
			return s.Paint(LevelColour(stack.Name), strings.Repeat(glyphs[min(i, len(glyphs)-1)], width-gap)) + strings.Repeat(" ", gap)
		}
	}
	return strings.Repeat(" ", width)
}

// axis writes a time under the first bar and then under each that leaves room for it.
func axis(times []time.Time, width int, location *time.Location) string {
	line := []rune(strings.Repeat(" ", len(times)*width+6))
	next := 0
	for i, at := range times {
		minute := at.In(location)
		if i*width < next || minute.Minute()%5 != 0 && i != 0 {
			continue
		}
		copy(line[i*width:], []rune(minute.Format("15:04")))
		next = i*width + 8
	}
	return strings.TrimRight(string(line), " ")
}

// Number writes a count with separators.
func Number(value float64) string {
	text := fmt.Sprintf("%.0f", value)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// Curve is a service's values over time; NaN where there are none.
type Curve struct {
	Name   string
	Values []float64
}

// Last is the newest value there is.
func (c Curve) Last() float64 {
	for i := len(c.Values) - 1; i >= 0; i-- {
		if !math.IsNaN(c.Values[i]) {
			return c.Values[i]
		}
	}
	return math.NaN()
}

// Peak is the highest value.
func (c Curve) Peak() float64 {
	peak := math.NaN()
	for _, value := range c.Values {
		if !math.IsNaN(value) && !(value <= peak) {
			peak = value
		}
	}
	return peak
}

const (
	curveColumns = 30
	curveBar     = 18
)

// Curves draws a sparkline, the newest and the highest value, and a bar for the newest.
func (s *Screen) Curves(curves []Curve, unit string) {
	highest := 0.0
	for _, curve := range curves {
		if last := curve.Last(); last > highest {
			highest = last
		}
	}
	s.Line("  %s", s.Paint(Grey, Pad("", 20)+" "+Pad("30 minutes", curveColumns)+" "+Pad("      latest", curveBar+13)+"     peak"))
	for _, curve := range curves {
		last := curve.Last()
		filled := 0
		if highest > 0 && !math.IsNaN(last) {
			filled = max(1, int(math.Round(last/highest*curveBar)))
		}
		colour := Green
		switch {
		case last >= 500:
			colour = Red
		case last >= 150:
			colour = Yellow
		}
		s.Line("  %s %s %s %s %s",
			s.Paint(Cyan, Pad(curve.Name, 20)),
			s.Paint(Blue, sparkline(curve.Values)),
			s.Paint(colour, fmt.Sprintf("%12s", value(last, unit))),
			s.Paint(colour, strings.Repeat("━", filled))+strings.Repeat(" ", curveBar-filled),
			s.Paint(Grey, fmt.Sprintf("%8s", value(curve.Peak(), unit))))
	}
}

func value(number float64, unit string) string {
	if math.IsNaN(number) {
		return "–"
	}
	if number < 10 {
		return fmt.Sprintf("%.1f %s", number, unit)
	}
	return Number(number) + " " + unit
}

// sparkline draws the newest values, each scaled to the curve's own peak.
func sparkline(values []float64) string {
	if len(values) > curveColumns {
		values = values[len(values)-curveColumns:]
	}
	peak := Curve{Values: values}.Peak()
	levels := []rune("▁▂▃▄▅▆▇█")
	line := make([]rune, 0, curveColumns)
	for _, value := range values {
		switch {
		case math.IsNaN(value) || math.IsNaN(peak) || peak <= 0:
			line = append(line, ' ')
		default:
			line = append(line, levels[min(len(levels)-1, int(max(value, 0)/peak*float64(len(levels))))])
		}
	}
	return string(line) + strings.Repeat(" ", curveColumns-len(line))
}
