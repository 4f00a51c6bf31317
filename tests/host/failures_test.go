package host

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

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
