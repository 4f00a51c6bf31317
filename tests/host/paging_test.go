package host

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

// Lines of one millisecond defeat paging by time: Grafana's own infinite scroll loses or repeats them
// (grafana#100357). The cursor must walk them all, each once, whatever the page.
const (
	pagedLines = 5000
	pageLimit  = 700
)

func pushSameMillisecond(h *host) {
	h.t.Helper()
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	lines := make([]string, pagedLines)
	for i := range lines {
		// 100 lines share each nanosecond, and all lie in one millisecond.
		at := start.Add(time.Duration(i / 100 * 1000))
		lines[i] = fmt.Sprintf(`{"ts":%q,"service":"s","msg":"%d"}`, at.Format(time.RFC3339Nano), i)
	}
	for from := 0; from < len(lines); from += 1000 {
		h.jsonLines(lines[from : from+1000]...)
	}
}

// pages follows the cursor to the end and returns the bodies of each page.
func pages(h *host, direction string, from, to time.Time, turn func(page int)) [][]string {
	h.t.Helper()
	var all [][]string
	var cursor *query.Cursor
	for page := 0; ; page++ {
		if page > pagedLines/pageLimit+2 {
			h.t.Fatalf("%s paging does not end", direction)
		}
		model := query.Logs("A", query.Is("service", "s"))
		model.Builder.Limit, model.Builder.Direction, model.Cursor = pageLimit, direction, cursor
		frames := h.frames(model, from, to)
		if len(frames) == 0 || frames[0].Rows() == 0 {
			return all
		}
		frame := frames[0]
		all = append(all, texts(h.t, field(h.t, frame, "body")))
		cursor = cursorAfter(h.t, frame, direction)
		if turn != nil {
			turn(page)
		}
	}
}

// cursorAfter is the place behind the frame's last row, as the frontend remembers it.
func cursorAfter(t *testing.T, frame *data.Frame, direction string) *query.Cursor {
	t.Helper()
	last := frame.Rows() - 1
	return &query.Cursor{
		TimestampNs: strconv.FormatInt(times(t, field(t, frame, "timestamp"))[last].UnixNano(), 10),
		Seq:         texts(t, field(t, frame, "id"))[last],
		Direction:   direction,
	}
}

func wantEachOnce(t *testing.T, pages [][]string) {
	t.Helper()
	seen := map[string]int{}
	for number, page := range pages {
		for _, body := range page {
			seen[body]++
			if seen[body] == 2 {
				t.Errorf("line %s came again on page %d", body, number)
			}
		}
		if len(page) != pageLimit && number != len(pages)-1 {
			t.Errorf("page %d has %d lines, want %d", number, len(page), pageLimit)
		}
	}
	for i := range pagedLines {
		if seen[strconv.Itoa(i)] == 0 {
			t.Fatalf("line %d never came", i)
		}
	}
}

func TestPagingWithinOneMillisecond(t *testing.T) {
	h := newHost(t)
	pushSameMillisecond(h)
	from, to := noon.Add(-time.Minute), noon.Add(time.Minute)
	for _, direction := range []string{"backward", "forward"} {
		t.Run(direction, func(t *testing.T) { wantEachOnce(t, pages(h, direction, from, to, nil)) })
	}
}

// Newer lines arrive and the store flushes while somebody scrolls back: what they read must not shift.
func TestPagingWhileLinesArriveAndTheStoreRestarts(t *testing.T) {
	h := newHost(t)
	pushSameMillisecond(h)
	got := pages(h, "backward", noon.Add(-time.Minute), noon.Add(time.Hour), func(page int) {
		h.jsonLines(fmt.Sprintf(`{"ts":"2026-11-20T12:30:%02dZ","service":"s","msg":"newer %d"}`, page, page))
		if page == 2 {
			h.restart()
		}
	})
	wantEachOnce(t, got)
	for number, page := range got {
		for _, body := range page {
			if len(body) > 5 {
				t.Errorf("line %q, newer than the first page, came on page %d", body, number)
			}
		}
	}
}

// The lines around a line: "context" asks both ways from the same place.
func TestContextAroundALine(t *testing.T) {
	h := newHost(t)
	pushSameMillisecond(h)
	from, to := noon.Add(-time.Minute), noon.Add(time.Minute)
	model := query.Logs("A", query.Is("message", "2500"))
	frame := h.frame(model, from, to)
	for direction, want := range map[string][]string{
		"backward": {"2499", "2498", "2497"},
		"forward":  {"2501", "2502", "2503"},
	} {
		around := query.Logs("A", query.Is("service", "s"))
		around.Purpose, around.Builder.Limit, around.Builder.Direction = "context", 3, direction
		around.Cursor = cursorAfter(t, frame, direction)
		sameText(t, direction, texts(t, field(t, h.frame(around, from, to), "body")), want)
	}
}

func TestOldestFirstGivesTheOldEnd(t *testing.T) {
	h := newHost(t)
	pushSameMillisecond(h)
	for direction, want := range map[string][]string{"forward": {"0", "1"}, "backward": {"4999", "4998"}} {
		model := query.Logs("A")
		model.Builder.Limit, model.Builder.Direction = 2, direction
		sameText(t, direction, texts(t, field(t, h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute)), "body")), want)
	}
}

// Explore joins a further page with what it has (combineFrames in Grafana 12.3, packages/grafana-o11y-ds-frontend) in front of
// the frame of the same name, or behind all others, and sorts by time, which leaves lines of one time where they stand.
func joined(frames, page data.Frames) data.Frames {
	for _, frame := range page {
		same := slices.IndexFunc(frames, func(known *data.Frame) bool { return known.RefID == frame.RefID && known.Name == frame.Name })
		if same < 0 {
			frames = append(frames, frame)
		} else {
			frames = slices.Insert(frames, same, frame) // its rows before those of the same name
		}
	}
	return frames
}

// Lines of one time stand in one order over all pages, in whichever way one scrolls.
func TestPagesOfOneTimeStandInOrder(t *testing.T) {
	h := newHost(t)
	const count, limit = 100, 10
	lines := make([]string, count)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"ts":%q,"service":"s","msg":"%d"}`, noon.Format(time.RFC3339Nano), i)
	}
	h.jsonLines(lines...)
	from, to := noon.Add(-time.Minute), noon.Add(time.Minute)
	for own, opposite := range map[string]string{"backward": "forward", "forward": "backward"} {
		t.Run(own, func(t *testing.T) {
			model := query.Logs("A")
			model.Builder.Direction, model.Builder.Limit = own, limit
			middle := query.Cursor{TimestampNs: strconv.FormatInt(noon.UnixNano(), 10), Seq: "50", Direction: own}
			shown := data.Frames{h.frame(model, from, to)}
			if own == "backward" {
				want := []string{}
				for range 3 {
					model.Cursor = cursorAfter(t, shown[len(shown)-1], own)
					shown = joined(shown, h.frames(model, from, to))
				}
				for i := range 4 * limit {
					want = append(want, strconv.Itoa(count-1-i))
				}
				sameText(t, "three pages behind", bodiesOf(t, shown), want)
			}
			model.Cursor = &middle
			shown = h.frames(model, from, to)
			shown[0].Name = "" // as a first page
			before := middle
			before.Seq, before.Direction = texts(t, field(t, shown[0], "id"))[0], opposite
			model.Cursor = &before
			shown = joined(shown, h.frames(model, from, to))
			step := map[string]int{"backward": -1, "forward": 1}[own]
			first, _ := strconv.Atoi(bodiesOf(t, shown)[0])
			for i, body := range bodiesOf(t, shown) {
				if body != strconv.Itoa(first+i*step) {
					t.Fatalf("a page in front: line %s in place %d of %v", body, i, bodiesOf(t, shown))
				}
			}
		})
	}
}

func bodiesOf(t *testing.T, frames data.Frames) []string {
	t.Helper()
	var all []string
	for _, frame := range frames {
		all = append(all, texts(t, field(t, frame, "body"))...)
	}
	return all
}
