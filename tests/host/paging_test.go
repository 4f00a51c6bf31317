package host

import (
	"fmt"
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
