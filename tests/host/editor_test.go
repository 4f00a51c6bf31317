package host

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"quiver/tests/host/query"
)

// asked is what the query editor sends with every question about the query on the screen.
func asked(model any) map[string]any {
	return map[string]any{
		"query": model, "intervalMs": 1000,
		"range": map[string]int64{"from": seriesFrom.UnixMilli(), "to": seriesTo.UnixMilli()},
	}
}

type checkAnswer struct {
	Problems []struct {
		From, To int
		Message  string
		Instead  []string
	}
	Hints       []struct{ Message, Label string }
	Explanation []string
}

func TestProblemsAreToldWithTheirPlaceAndWithoutRunning(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	cases := []struct{ sql, at, message, instead string }{
		{"SELECT * FROM logs WHERE $__timeFilter() AND servce = 'a'", "servce", "no field named 'servce'", "service"},
		{"SELECT é, 'ü' FROM logs", "é", "no field named", ""},
		{"SELECT cuont(*) FROM logs WHERE $__timeFilter()", "cuont", "no function named 'cuont'", "count"},
		{"SELECT * FORM logs", "FORM", "found: FORM", ""},
		{"SELECT $__timeFiltr()", "$__timeFiltr", "no macro named", "$__timeFilter"},
	}
	for _, c := range cases {
		var answer checkAnswer
		h.resource(http.MethodPost, "check", asked(query.SQL("A", "auto", c.sql)), &answer)
		if len(answer.Problems) != 1 {
			t.Errorf("%s: problems %+v", c.sql, answer.Problems)
			continue
		}
		problem, units := answer.Problems[0], []rune(c.sql) // no text here has letters of two UTF-16 units
		if at := string(units[problem.From:problem.To]); at != c.at {
			t.Errorf("%s: the problem is at %q, want %q", c.sql, at, c.at)
		}
		if !strings.Contains(problem.Message, c.message) {
			t.Errorf("%s: %q, want %q", c.sql, problem.Message, c.message)
		}
		if c.instead != "" && (len(problem.Instead) == 0 || problem.Instead[0] != c.instead) {
			t.Errorf("%s: offers %v, want %q", c.sql, problem.Instead, c.instead)
		}
	}
	var fine checkAnswer
	h.resource(http.MethodPost, "check", asked(query.SQL("A", "auto", "SELECT * FROM logs WHERE $__timeFilter()")), &fine)
	if len(fine.Problems)+len(fine.Hints) != 0 || len(fine.Explanation) < 2 {
		t.Errorf("a good query is told %+v", fine)
	}
}

func TestBuilderAndSQLBecomeEachOther(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	model := aggregate("A", query.Aggregate{Function: "count"}, "service")
	model.Builder.Step = ""
	var text struct{ SQL string }
	h.resource(http.MethodPost, "sql", asked(model), &text)
	// The text goes on with the panel's range and interval, wherever it is put.
	if !strings.Contains(text.SQL, "$__timeFilter(timestamp)") || !strings.Contains(text.SQL, "$__timeGroup(timestamp, $__interval)") {
		t.Fatalf("SQL is %q", text.SQL)
	}
	byText := h.frames(query.SQL("A", "series", text.SQL), seriesFrom, seriesFrom.Add(time.Minute))
	if len(byText) != 2 {
		t.Errorf("%d series of %q", len(byText), text.SQL)
	}
	var back struct {
		Builder struct{ GroupBy []string }
		Reason  string
	}
	h.resource(http.MethodPost, "builder", asked(query.SQL("A", "auto", text.SQL)), &back)
	if len(back.Builder.GroupBy) != 1 || back.Builder.GroupBy[0] != "service" {
		t.Errorf("%q becomes %+v", text.SQL, back)
	}
	h.resource(http.MethodPost, "builder", asked(query.SQL("A", "auto", "SELECT * FROM logs LIMIT 1 OFFSET 5")), &back)
	if back.Reason == "" {
		t.Error("nothing says why there is no builder for OFFSET")
	}
}

func TestEstimateCountsTheRange(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	var all, some struct{ Lines, Bytes int }
	h.resource(http.MethodPost, "estimate", asked(query.Logs("A")), &all)
	h.resource(http.MethodPost, "estimate", asked(query.Logs("A", query.Is("service", "b"))), &some)
	if all.Lines != 600 || some.Lines != 200 {
		t.Errorf("%d lines, of them %d of b; want 600 and 200", all.Lines, some.Lines)
	}
	// A line has about 110 bytes.
	if all.Bytes < 600*80 || all.Bytes > 600*150 {
		t.Errorf("%d bytes", all.Bytes)
	}
}

func TestAQueryMayNameAListedTenant(t *testing.T) {
	h := newHost(t)
	pushSeries(h)
	h.instance.JSONData["tenants"] = []string{"team-a"}
	h.instance.Updated = time.Now()
	for tenant, want := range map[string]string{"team-a": "", "team-b": "may not read the tenant 'team-b'"} {
		model := query.SQL("A", "table", "SELECT count(*) AS n FROM logs")
		model.Tenant = tenant
		response := h.responses(nil, model.Over(seriesFrom, seriesTo))["A"]
		if want == "" {
			if response.Error != nil || response.Frames[0].Fields[0].CopyAt(0) == nil {
				t.Errorf("tenant %q: %v", tenant, response.Error)
			}
			continue
		}
		if response.Error == nil || !strings.Contains(response.Error.Error(), want) {
			t.Errorf("tenant %q: %v, want %q", tenant, response.Error, want)
		}
	}
}
