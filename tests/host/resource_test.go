package host

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quiver/tests/host/query"
)

// resource calls a resource and decodes its JSON into answer, which may be nil.
func (h *host) resource(method, path string, body any, answer any) int {
	h.t.Helper()
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			h.t.Fatal(err)
		}
	}
	response, err := plugin.CallResource(h.context(), h.instance, method, path, encoded)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	if answer != nil {
		if response.Status != http.StatusOK {
			h.t.Fatalf("%s %s: status %d: %s", method, path, response.Status, response.Body)
		}
		if err := json.Unmarshal(response.Body, answer); err != nil {
			h.t.Fatalf("%s %s: %v in %s", method, path, err, response.Body)
		}
	}
	return response.Status
}

func rangeParams() url.Values {
	return url.Values{
		"from": {fmt.Sprint(seriesFrom.UnixMilli())},
		"to":   {fmt.Sprint(seriesTo.UnixMilli())},
	}
}

type column struct{ Name, Type string }

type valueCount struct {
	Value string
	Count int
}

func (h *host) values(params map[string]string) []valueCount {
	h.t.Helper()
	query := rangeParams()
	for name, value := range params {
		query.Set(name, value)
	}
	var answer []valueCount
	h.resource(http.MethodGet, "fields/values?"+query.Encode(), nil, &answer)
	return answer
}

func TestFields(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.jsonLines(`{"ts":"2026-11-20T12:00:01Z","service":"a","msg":"m","ratio":0.5,"cached":true,"http.status":200}`)
	var answer []column
	h.resource(http.MethodGet, "fields?"+rangeParams().Encode(), nil, &answer)
	types := map[string]string{}
	for _, column := range answer {
		types[column.Name] = column.Type
	}
	for name, want := range map[string]string{
		"timestamp": "time", "level": "string", "service": "string", "message": "string", "trace_id": "string",
		"duration_ms": "integer", "ratio": "float", "cached": "boolean", "http.status": "integer", "user": "string",
	} {
		if types[name] != want {
			t.Errorf("field %q has type %q, want %q; all: %v", name, types[name], want, types)
		}
	}
	for _, hidden := range []string{"_seq", "_line"} {
		if _, ok := types[hidden]; ok {
			t.Errorf("the hidden column %q is offered", hidden)
		}
	}
}

func TestFieldValues(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	if got, want := h.values(map[string]string{"field": "service"}), []valueCount{{"a", 400}, {"b", 200}}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v, most frequent first", got, want)
	}
	filtered := h.values(map[string]string{
		"field":  "service",
		"filter": `[{"field":"level","op":"=","value":"error"},{"field":"service","op":"!=","value":"b"}]`,
	})
	if want := []valueCount{{"a", 40}}; !slices.Equal(filtered, want) {
		t.Errorf("services of errors outside b %v, want %v", filtered, want)
	}
	if got := h.values(map[string]string{"field": "user", "limit": "3"}); len(got) != 3 {
		t.Errorf("limit 3 gives %v", got)
	}
	if got := h.values(map[string]string{"field": "user", "contains": "5"}); len(got) != 1 || got[0].Value != "u5" {
		t.Errorf("values that contain 5: %v", got)
	}
	if got := h.values(map[string]string{"field": "duration_ms", "contains": "599"}); len(got) != 1 || got[0] != (valueCount{"599", 1}) {
		t.Errorf("values of a number that contain 599: %v", got)
	}
	outside := rangeParams()
	outside.Set("field", "service")
	outside.Set("from", "1000000000000")
	outside.Set("to", "1000000060000")
	var none []valueCount
	h.resource(http.MethodGet, "fields/values?"+outside.Encode(), nil, &none)
	if len(none) != 0 {
		t.Errorf("values of a time without lines: %v", none)
	}
}

func TestSQLOfABuilderQuery(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	request := map[string]any{
		"query":      query.Logs("A", query.Is("service", "it's")),
		"range":      map[string]int64{"from": seriesFrom.UnixMilli(), "to": seriesTo.UnixMilli()},
		"intervalMs": 1000,
	}
	var answer struct{ SQL string }
	h.resource(http.MethodPost, "sql", request, &answer)
	if !strings.Contains(answer.SQL, "FROM logs") || !strings.Contains(answer.SQL, "'it''s'") {
		t.Fatalf("SQL is %q", answer.SQL)
	}
	// Somebody switches from builder to code: the text must run as it stands.
	h.frames(query.SQL("A", "auto", answer.SQL), seriesFrom, seriesTo)
}

func TestFunctions(t *testing.T) {
	h := newHost(t)
	var answer []struct{ Name, Description, Syntax string }
	h.resource(http.MethodGet, "functions", nil, &answer)
	byName := map[string]string{}
	for _, function := range answer {
		byName[function.Name] = function.Syntax
	}
	for _, name := range []string{"count", "date_bin", "regexp_like", "approx_percentile_cont", "lower"} {
		if _, ok := byName[name]; !ok {
			t.Errorf("function %q is not offered; %d are", name, len(answer))
		}
	}
}

func TestResourcesThatAreAskedWrongly(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	cases := []struct {
		method, path string
		body         any
		want         int
	}{
		{http.MethodGet, "nonsense", nil, http.StatusNotFound},
		{http.MethodGet, "", nil, http.StatusNotFound},
		{http.MethodGet, "fields/values", nil, http.StatusBadRequest},
		{http.MethodGet, "fields/values?field=service&filter=%5B", nil, http.StatusBadRequest},
		{http.MethodPost, "sql", "a text", http.StatusBadRequest},
	}
	for _, c := range cases {
		if got := h.resource(c.method, c.path, c.body, nil); got != c.want {
			t.Errorf("%s %q: status %d, want %d", c.method, c.path, got, c.want)
		}
	}
}

func TestResourcesWhenTheStoreIsGone(t *testing.T) {
	h := newHost(t)
	h.instance.URL = "http://" + freeAddress(t)
	response, err := plugin.CallResource(h.context(), h.instance, http.MethodGet, "fields", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.Status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", response.Status)
	}
	// The frontend reads the message here (store.ts, messageOf).
	var body struct{ Message, Error string }
	if err := json.Unmarshal(response.Body, &body); err != nil || body.Message+body.Error == "" {
		t.Errorf("body %s has no message for people (%v)", response.Body, err)
	}
}

// backend/testdata/model holds the frontend and the backend to one model. The same files hold the binary to it: a model
// as it may arrive and the model with every default written out must become the same SQL.
func TestModelFixtures(t *testing.T) {
	paths, err := filepath.Glob("../../backend/testdata/model/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 10 {
		t.Fatalf("%d fixtures in backend/testdata/model, want at least 10", len(paths))
	}
	h := newHost(t)
	pushSeries(h)
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var fixture struct{ Model, Normalized json.RawMessage }
			if err := json.Unmarshal(text, &fixture); err != nil {
				t.Fatal(err)
			}
			if arrived, normalized := h.sqlOf(fixture.Model), h.sqlOf(fixture.Normalized); arrived != normalized {
				t.Errorf("the model becomes\n%s\nand the normalized one\n%s", arrived, normalized)
			}
		})
	}
}

// sqlOf is the answer of the resource `sql`, the refusal included.
func (h *host) sqlOf(model json.RawMessage) string {
	h.t.Helper()
	body, err := json.Marshal(map[string]any{
		"query":      model,
		"range":      map[string]int64{"from": seriesFrom.UnixMilli(), "to": seriesTo.UnixMilli()},
		"intervalMs": 60_000,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	response, err := plugin.CallResource(h.context(), h.instance, http.MethodPost, "sql", body)
	if err != nil {
		h.t.Fatal(err)
	}
	if response.Status != http.StatusOK && response.Status != http.StatusBadRequest {
		h.t.Fatalf("status %d: %s", response.Status, response.Body)
	}
	return string(response.Body)
}

func TestLinksAreTriedWhileTheyAreWritten(t *testing.T) {
	h := newHost(t)
	var newest map[string]string
	h.resource(http.MethodGet, "newest-line", nil, &newest)
	if newest != nil {
		t.Errorf("an empty store has the line %v", newest)
	}
	h.jsonLines(
		fmt.Sprintf(`{"ts":%q,"service":"shop","msg":"paid","order_id":17}`, time.Now().Format(time.RFC3339Nano)),
		`{"ts":"2026-11-20T12:00:01Z","service":"shop","msg":"older"}`,
	)
	h.resource(http.MethodGet, "newest-line", nil, &newest)
	if newest["message"] != "paid" || newest["order_id"] != "17" {
		t.Fatalf("the newest line is %v", newest)
	}
	line, err := json.Marshal(newest)
	if err != nil {
		t.Fatal(err)
	}
	links := []map[string]string{
		{"field": "order_id", "url": "https://shop.example/${__value.raw}"},
		{"name": "verb", "pattern": "(?i)(PA)ID", "url": "https://shop.example/${__value.raw}"},
		{"name": "broken", "pattern": "(", "url": "https://shop.example"},
	}
	var found []struct{ Name, Value, Problem string }
	h.resource(http.MethodPost, "links", map[string]any{"links": links, "line": string(line)}, &found)
	if len(found) != 3 || found[0].Value != "17" || found[1].Value != "pa" {
		t.Fatalf("found %v", found)
	}
	if !strings.HasPrefix(found[2].Problem, "the pattern of the link 'broken' cannot be read") {
		t.Errorf("the broken pattern is told as %q", found[2].Problem)
	}
}
