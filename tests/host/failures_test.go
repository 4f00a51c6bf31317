package host

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

func wantError(t *testing.T, response backend.DataResponse, status backend.Status, words ...string) {
	t.Helper()
	if response.Error == nil {
		t.Fatalf("no error, want status %d", status)
	}
	if response.Status != status {
		t.Errorf("status %d with %q, want %d", response.Status, response.Error, status)
	}
	for _, word := range words {
		if !strings.Contains(response.Error.Error(), word) {
			t.Errorf("message %q does not say %q", response.Error, word)
		}
	}
}

func TestOneFailingQueryOfThreeFailsAlone(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	responses := h.responses(nil,
		query.Logs("A").Over(seriesFrom, seriesTo),
		query.SQL("B", "table", "SELECT servce FROM logs WHERE $__timeFilter()").Over(seriesFrom, seriesTo),
		aggregate("C", query.Aggregate{Function: "count"}).Over(seriesFrom, seriesTo),
	)
	for _, refID := range []string{"A", "C"} {
		if err := responses[refID].Error; err != nil || len(responses[refID].Frames) == 0 {
			t.Errorf("query %s: error %v, %d frames", refID, err, len(responses[refID].Frames))
		}
	}
	wantError(t, responses["B"], backend.StatusBadRequest, "servce", "did you mean", "service")
}

func TestWrongQueries(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	cases := map[string]struct {
		sql  string
		word string
	}{
		"syntax":          {"SELEC 1", "SELEC"},
		"unknown table":   {"SELECT * FROM log", "log"},
		"unknown func":    {"SELECT approx_percentle(duration_ms) FROM logs", "approx_percentle"},
		"delete":          {"DELETE FROM logs", ""},
		"drop":            {"DROP TABLE logs", ""},
		"create":          {"CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", ""},
		"copy":            {"COPY logs TO '/tmp/quiver-host-test.csv'", ""},
		"set":             {"SET datafusion.execution.batch_size = 1", ""},
		"two statements":  {"SELECT 1; SELECT 2", ""},
		"unknown macro":   {"SELECT $__timeFiltr(timestamp) FROM logs", "$__timeFiltr"},
		"empty":           {"", "empty"},
		"file as a table": {"SELECT * FROM '/etc/passwd'", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			response := h.responses(nil, query.SQL("A", "table", c.sql).Over(seriesFrom, seriesTo))["A"]
			wantError(t, response, backend.StatusBadRequest, c.word)
		})
	}
}

// A model somebody wrote by hand, or one of a version to come, must not fail the panel's other queries.
func TestModelThatCannotBeRead(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	for name, model := range map[string]string{
		"not an object": `[]`, "wrong types": `{"builder":{"filters":"x","limit":{}},"sql":7}`, "not JSON": `{`, "empty": ``,
	} {
		t.Run(name, func(t *testing.T) {
			odd := query.Raw("B", nil, seriesFrom, seriesTo)
			odd.JSON = json.RawMessage(model)
			responses := h.responses(nil, query.Logs("A").Over(seriesFrom, seriesTo), odd)
			if err := responses["A"].Error; err != nil {
				t.Errorf("the good query failed too: %v", err)
			}
			if responses["B"].Error == nil && len(responses["B"].Frames) == 0 {
				t.Error("the odd query has neither an error nor a frame")
			}
		})
	}
}

func TestQueryThatTakesTooLong(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.instance.JSONData["timeoutSeconds"] = 1
	start := time.Now()
	responses := h.responses(nil,
		query.SQL("A", "table", "SELECT count(*) FROM logs a, logs b, logs c, logs d WHERE a.duration_ms + b.duration_ms + c.duration_ms + d.duration_ms = 1").Over(seriesFrom, seriesTo),
		query.Logs("B").Over(seriesFrom, seriesTo))
	wantError(t, responses["A"], backend.StatusTimeout)
	if responses["B"].Error != nil {
		t.Errorf("the quick query failed too: %v", responses["B"].Error)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a query with a deadline of 1 s took %s", took)
	}
}

// noticed gives the frame of a query that is answered in part, and says so.
func noticed(t *testing.T, h *host, model query.Model, words ...string) *data.Frame {
	t.Helper()
	frame := h.frame(model, seriesFrom, seriesTo)
	var told []string
	for _, notice := range frame.Meta.Notices {
		told = append(told, notice.Text)
	}
	for _, word := range words {
		if !strings.Contains(strings.Join(told, "\n"), word) {
			t.Errorf("notices %q do not say %q", told, word)
		}
	}
	return frame
}

// What came before the deadline is shown, with a word about the rest; an alert rule must not take it for the whole.
func TestATimeOutKeepsWhatThereIs(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.instance.JSONData["timeoutSeconds"] = 1
	halfEndless := query.SQL("A", "table", "SELECT duration_ms FROM logs UNION ALL SELECT count(*) FROM logs a, logs b, logs c, logs d "+
		"WHERE a.duration_ms + b.duration_ms + c.duration_ms + d.duration_ms = 1")
	if frame := noticed(t, h, halfEndless, "Not all of the answer", "took longer than 1s"); frame.Rows() == 0 {
		t.Error("no rows, and there are some before the deadline")
	}
	response := h.responses(map[string]string{"FromAlert": "true"}, halfEndless.Over(seriesFrom, seriesTo))["A"]
	wantError(t, response, backend.StatusTimeout)
}

func TestALimitOfTheStoreIsANotice(t *testing.T) {
	h := newHost(t, "QUIVER_QUERY_ROWS_MAX=3")
	pushSeries(h)
	frame := noticed(t, h, query.SQL("A", "table", "SELECT message FROM logs"), "cut at the store's limit of rows")
	if frame.Rows() != 3 {
		t.Errorf("%d rows, want 3", frame.Rows())
	}
}

// A damaged segment costs its own lines, not the panel.
func TestADamagedSegmentIsANotice(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	http, grpc := h.store.HTTP, h.store.GRPC
	if err := h.store.Stop(); err != nil {
		t.Fatal(err)
	}
	h.store = nil
	damaged := 0
	err := filepath.WalkDir(h.dataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".parquet" {
			return err
		}
		damaged++
		return os.Truncate(path, 100)
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d segments, %v", damaged, err)
	}
	h.start(http, grpc)
	h.jsonLines(`{"ts":"` + seriesFrom.Format(time.RFC3339Nano) + `","service":"a","msg":"still here"}`)
	frame := noticed(t, h, query.Logs("A"), "records may be missing")
	sameText(t, "bodies", texts(t, field(t, frame, "body")), []string{"still here"})
}

// The store goes away and comes back: a panel says so in words, and works again without a new Grafana.
func TestStoreThatGoesAwayAndComesBack(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.frame(query.Logs("A"), seriesFrom, seriesTo)
	http, grpc := h.store.HTTP, h.store.GRPC
	if err := h.store.Stop(); err != nil {
		t.Fatal(err)
	}
	h.store = nil
	response := h.responses(nil, query.Logs("A").Over(seriesFrom, seriesTo))["A"]
	wantError(t, response, backend.StatusBadGateway, grpc)
	h.start(http, grpc)
	eventually(t, "the query works again", func() bool {
		return h.responses(nil, query.Logs("A").Over(seriesFrom, seriesTo))["A"].Error == nil
	})
}

func TestQueryWithAWrongToken(t *testing.T) {
	h := newHost(t, "QUIVER_SERVER_AUTH_TOKENS=right")
	h.instance.Secrets = map[string]string{"token": "wrong"}
	response := h.responses(nil, query.Logs("A").Over(seriesFrom, seriesTo))["A"]
	if response.Error == nil {
		t.Fatal("a wrong token is let in")
	}
	if response.Status != backend.StatusUnauthorized && response.Status != backend.StatusForbidden {
		t.Errorf("status %d with %q, want 401 or 403", response.Status, response.Error)
	}
}

// Tenants do not see each other's lines.
func TestTenants(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.instance.JSONData["tenant"] = "another"
	for _, frame := range h.frames(query.Logs("A"), seriesFrom, seriesTo) {
		if frame.Rows() != 0 {
			t.Errorf("tenant 'another' sees %d lines of tenant 'default'", frame.Rows())
		}
	}
}

func TestAFieldNobodySentIsNamed(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	response := h.responses(nil, query.Logs("A", query.Is("durations_ms", "1")).Over(seriesFrom, seriesTo))["A"]
	wantError(t, response, backend.StatusBadRequest, "durations_ms", "duration_ms")
}
