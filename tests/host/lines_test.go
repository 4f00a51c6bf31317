package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

func noonLine(service, level, message string) string {
	line, err := json.Marshal(map[string]string{
		"ts": noon.Format(time.RFC3339Nano), "service": service, "level": level, "msg": message,
	})
	if err != nil {
		panic(err) // three texts
	}
	return string(line)
}

func bodies(h *host, model query.Model) []string {
	h.t.Helper()
	return texts(h.t, field(h.t, h.frame(model, noon.Add(-time.Minute), noon.Add(time.Minute)), "body"))
}

// Filters beside SQL text narrow its lines, its counts and its volume alike.
func TestFiltersBesideSQL(t *testing.T) {
	h := newHost(t)
	h.jsonLines(noonLine("a", "error", "it's broken"), noonLine("a", "info", "fine"), noonLine("b", "error", "other"))
	filters := []query.Filter{query.Is("level", "error"), {Field: "message", Op: "contains", Value: "it's"}}
	sql := query.SQL("A", "auto", "SELECT * FROM logs WHERE service = 'a' OR service = 'b' -- mine")
	sql.Filters = filters
	if got := bodies(h, sql); !slices.Equal(got, []string{"it's broken"}) {
		t.Errorf("lines %q", got)
	}
	volume := sql
	volume.Purpose = "log-volume"
	var counted float64
	for _, frame := range h.frames(volume, noon.Add(-time.Minute), noon.Add(time.Minute)) {
		counted += sum(t, frame.Fields[1])
	}
	if counted != 1 {
		t.Errorf("the volume counts %v lines, want 1", counted)
	}
	inner := query.SQL("A", "table", "WITH e AS (SELECT service FROM logs) SELECT service, count(*) AS n FROM e GROUP BY 1")
	inner.Filters = filters[:1]
	frame := h.frame(inner, noon.Add(-time.Minute), noon.Add(time.Minute))
	if got := numbers(t, field(t, frame, "n")); !slices.Equal(got, []float64{1, 1}) {
		t.Errorf("counts %v, want one error of each service", got)
	}
}

func TestFiltersWithoutAPlaceAreANotice(t *testing.T) {
	h := newHost(t)
	model := query.SQL("A", "table", "SELECT 1 AS one")
	model.Filters = []query.Filter{query.Is("level", "error")}
	notices := h.frame(model, noon, noon.Add(time.Minute)).Meta.Notices
	if len(notices) != 1 || !strings.Contains(notices[0].Text, "not filtered by 'level'") {
		t.Errorf("notices %+v", notices)
	}
}

func TestSQLIsEditedWithMacrosAndComments(t *testing.T) {
	h := newHost(t)
	var answer struct{ SQL string }
	sql := "SELECT * FROM logs -- all\nWHERE $__timeFilter() AND service IN ($service)\nLIMIT 5"
	edit := func(sql, list string) {
		t.Helper()
		filter := []query.Filter{query.Is("level", "error")}
		h.resource(http.MethodPost, "edit-sql", map[string]any{"sql": sql, list: filter}, &answer)
	}
	edit(sql, "add")
	if want := strings.Replace(sql, "\nLIMIT", "\n  AND level = 'error'\nLIMIT", 1); answer.SQL != want {
		t.Errorf("got  %q\nwant %q", answer.SQL, want)
	}
	edit(answer.SQL, "remove")
	if answer.SQL != sql {
		t.Errorf("got  %q\nwant %q", answer.SQL, sql)
	}
	body := map[string]any{"sql": "SELECT 1", "add": []query.Filter{query.Is("level", "error")}}
	if status := h.resource(http.MethodPost, "edit-sql", body, nil); status != http.StatusBadRequest {
		t.Errorf("SQL without lines is edited with status %d", status)
	}
}

func TestAnOperatorThatThereIsNotIsAnError(t *testing.T) {
	h := newHost(t)
	model := query.Logs("A", query.Filter{Field: "level", Op: "eq", Value: "error"})
	response := h.responses(nil, model.Over(noon, noon.Add(time.Minute)))["A"]
	if response.Error == nil || !strings.Contains(response.Error.Error(), "operator 'eq'") {
		t.Errorf("error %v", response.Error)
	}
}

// A line of a megabyte is cut for display, and its link finds the whole of it.
func TestALongLineIsCutAndCanBeHadWhole(t *testing.T) {
	h := newHost(t)
	long := strings.Repeat("ä", 100_000)
	h.jsonLines(noonLine("a", "info", "short"), noonLine("a", "info", long))
	frame := h.frame(query.Logs("A"), noon.Add(-time.Minute), noon.Add(time.Minute))
	row := slices.IndexFunc(texts(t, field(t, frame, "body")), func(body string) bool { return body != "short" })
	body := texts(t, field(t, frame, "body"))[row]
	if len(body) > 17_000 || !strings.HasSuffix(body, "of 200000 bytes)") {
		t.Fatalf("the line is shown with %d bytes, ending %q", len(body), body[len(body)-40:])
	}
	whole := field(t, frame, "wholeLine")
	id := texts(t, whole)[row]
	if id == "" || texts(t, whole)[1-row] != "" {
		t.Fatalf("ids of whole lines: %q", texts(t, whole))
	}
	// As a click on the link does: its query, with the field's value in it.
	link := whole.Config.Links[0]
	encoded, err := json.Marshal(link.Internal.Query)
	if err != nil {
		t.Fatal(err)
	}
	var model query.Model
	if err := json.Unmarshal(bytes.ReplaceAll(encoded, []byte("${__value.raw}"), []byte(id)), &model); err != nil {
		t.Fatal(err)
	}
	model.RefID = "A"
	if got := bodies(h, model); !slices.Equal(got, []string{long}) {
		t.Errorf("%d lines, the first with %d bytes", len(got), len(got[0]))
	}
}

func TestLinksToOtherSystems(t *testing.T) {
	h := newHost(t)
	h.instance.JSONData["links"] = []map[string]any{
		{"name": "ticket", "pattern": `ticket=(\w+-\d+)`, "url": "https://tickets/${__value.raw}"},
		{"name": "none", "pattern": "absent", "url": "https://x"},
	}
	h.jsonLines(noonLine("a", "info", "done ticket=OPS-12"), noonLine("a", "info", "nothing"))
	frame := h.frame(query.Logs("A"), noon.Add(-time.Minute), noon.Add(time.Minute))
	ticket := field(t, frame, "ticket")
	found := texts(t, ticket)
	slices.Sort(found)
	if !slices.Equal(found, []string{"", "OPS-12"}) || ticket.Config.Links[0].URL != "https://tickets/${__value.raw}" {
		t.Errorf("values %q, links %+v", found, ticket.Config.Links)
	}
	if slices.Contains(fieldNames(frame), "none") {
		t.Error("a link that finds nothing has a field")
	}
}

func (h *host) export(model query.Model, format string, from, to time.Time) (int, string, string) {
	h.t.Helper()
	parameters := url.Values{
		"query": {string(model.JSON())}, "format": {format},
		"from": {fmt.Sprint(from.UnixMilli())}, "to": {fmt.Sprint(to.UnixMilli())},
	}
	response, err := plugin.CallResource(h.context(), h.instance, http.MethodGet, "export?"+parameters.Encode(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	disposition := strings.Join(response.Headers["Content-Disposition"], "")
	return response.Status, disposition, string(response.Body)
}

// A download has every line, also beyond the panel's limit, and with thousands in one millisecond.
func TestADownloadHasEveryLineOnce(t *testing.T) {
	h := newHost(t)
	for range 3 {
		pushSameMillisecond(h)
	}
	from, to := noon.Truncate(time.Second), noon.Add(time.Minute)
	limited := query.Logs("A", query.Is("service", "s"))
	limited.Builder.Limit = 10
	sql := query.SQL("A", "auto", "SELECT timestamp, message FROM logs WHERE $__timeFilter() ORDER BY timestamp ASC")
	three := query.SQL("A", "auto", "SELECT timestamp, message FROM logs LIMIT 3")
	counted := query.SQL("A", "table", "SELECT service, count(*) AS n FROM logs GROUP BY 1")
	for name, c := range map[string]struct {
		model  query.Model
		format string
		lines  int
	}{
		"builder":            {limited, "json", 3 * pagedLines},
		"SQL":                {sql, "txt", 3 * pagedLines},
		"SQL with its limit": {three, "json", 3},
		"table":              {counted, "csv", 2},
	} {
		status, disposition, body := h.export(c.model, c.format, from, to)
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if status != http.StatusOK || !strings.HasPrefix(disposition, "attachment") || len(lines) != c.lines {
			t.Errorf("%s: status %d, %q, %d lines, want %d", name, status, disposition, len(lines), c.lines)
		}
		times := map[string]int{}
		for _, line := range lines {
			times[line]++
		}
		if c.lines == 3*pagedLines && len(times) != pagedLines {
			t.Errorf("%s: %d different lines, want %d, each three times", name, len(times), pagedLines)
		}
	}
	if status, _, body := h.export(limited, "xml", from, to); status != http.StatusBadRequest {
		t.Errorf("format xml: status %d: %s", status, body)
	}
}

func TestAutoSQLWithoutLinesIsAnEmptyFrame(t *testing.T) {
	h := newHost(t)
	for _, sql := range []string{
		"SELECT * FROM logs",
		"SELECT * FROM logs WHERE false",
		"SELECT timestamp, message FROM logs WHERE service = 'none'",
		"SELECT $__timeGroup(timestamp) AS time, count(*) FROM logs WHERE $__timeFilter() GROUP BY 1",
		"SELECT service, count(*) FROM logs GROUP BY 1",
	} {
		for _, frame := range h.frames(query.SQL("A", "auto", sql), noon, noon.Add(time.Minute)) {
			if rows(frame) != 0 {
				t.Errorf("%s: %d rows", sql, rows(frame))
			}
		}
	}
}

func rows(frame *data.Frame) int {
	if len(frame.Fields) == 0 {
		return 0
	}
	return frame.Rows()
}

// The store's log says which dashboard, panel and user a query came from, in letters that a header can carry.
func TestTheStoreKnowsWhoAsks(t *testing.T) {
	h := newHost(t, "QUIVER_QUERY_SLOW_AFTER=0s")
	headers := map[string]string{
		"http_X-Dashboard-Uid": "shop", "http_X-Dashboard-Title": "Über; alles", "http_X-Panel-Id": "7",
		"http_X-Panel-Title": "Errors",
	}
	h.framesWith(headers, query.Logs("A"), noon, noon.Add(time.Minute))
	want := "dashboard=shop;title=_ber_ alles;panel=7;panel-title=Errors;user=admin"
	eventually(t, "the store's log has "+want, func() bool { return strings.Contains(h.logs.tail(), want) })
}

// Somebody leaves a panel whose query runs for minutes: it ends in the store at once.
func TestLeavingAPanelEndsItsQuery(t *testing.T) {
	h := newHost(t, "QUIVER_QUERY_SLOW_AFTER=0s")
	pushSeries(h)
	slow := query.SQL("A", "table", "SELECT count(*) AS endless FROM logs a, logs b, logs c, logs d "+
		"WHERE a.duration_ms + b.duration_ms + c.duration_ms + d.duration_ms = 1")
	ended := func() bool {
		for line := range strings.Lines(h.logs.tail()) {
			if strings.Contains(line, "endless") && strings.Contains(line, "cancelled") {
				return true
			}
		}
		return false
	}
	eventually(t, "the store's log has the query as cancelled", func() bool {
		if ended() {
			return true
		}
		// Long enough for the query to run, and far from its end.
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if _, err := plugin.QueryData(ctx, h.instance, nil, slow.Over(seriesFrom, seriesTo)); err == nil {
			t.Fatal("the query was answered")
		}
		return false
	})
}
