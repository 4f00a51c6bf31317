package grafana

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInterpolate(t *testing.T) {
	cases := []struct {
		name, model, want string
		values            Values
	}{
		{"a list takes every value", `{"builder":{"filters":[{"field":"s","op":"in","values":["$service","x"]}]}}`,
			`{"builder":{"filters":[{"field":"s","op":"in","values":["a","b","x"]}],"search":null}}`, Values{"service": {"a", "b"}}},
		{"all drops the filter", `{"builder":{"filters":[{"field":"s","op":"in","values":["${service}"]},{"field":"t","op":"=","value":"1"}]}}`,
			`{"builder":{"filters":[{"field":"t","op":"=","value":"1"}],"search":null}}`, Values{"service": All}},
		{"an empty search falls away", `{"builder":{"search":[{"op":"contains","text":"$q"},{"op":"contains","text":"y"}]}}`,
			`{"builder":{"filters":null,"search":[{"op":"contains","text":"y"}]}}`, Values{"q": {""}}},
		{"SQL is quoted, macros stay", `{"sql":"s IN ($service) AND $__timeFilter(t)"}`,
			`{"sql":"s IN ('it''s','b') AND $__timeFilter(t)"}`, Values{"service": {"it's", "b"}}},
		{"a text in quotes takes the value alone", `{"sql":"contains(m, '$q') AND regexp_like(m, '(a|$)') AND s IN ($service)"}`,
			`{"sql":"contains(m, 'it''s') AND regexp_like(m, '(a|$)') AND s IN ('k')"}`, Values{"q": {"it's"}, "service": All}},
		{"a filter on nothing falls away", `{"builder":{"filters":[{"field":"t","op":"contains","value":"$q"},{"field":"u","op":"exists"}]}}`,
			`{"builder":{"filters":[{"field":"u","op":"exists","value":""}],"search":null}}`, Values{"q": {""}}},
		{"all of SQL is what is known", `{"sql":"s IN ($service)"}`, `{"sql":"s IN ('k')"}`, Values{"service": All}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Interpolate(json.RawMessage(c.model), c.values, Values{"service": {"k"}})
			if err != nil {
				t.Fatal(err)
			}
			var same, want any
			if json.Unmarshal(got, &same) != nil || json.Unmarshal([]byte(c.want), &want) != nil {
				t.Fatalf("no JSON: %s", got)
			}
			a, _ := json.Marshal(same)
			b, _ := json.Marshal(want)
			if string(a) != string(b) {
				t.Errorf("got  %s\nwant %s", a, b)
			}
		})
	}
	if _, err := Interpolate(json.RawMessage(`{"sql":"$typo"}`), Values{}, nil); err == nil {
		t.Error("an unknown variable in SQL passes")
	}
	if _, err := Interpolate(json.RawMessage(`{"builder":{"filters":[{"field":"s","value":"$typo"}]}}`), Values{}, nil); err == nil {
		t.Error("an unknown variable in the builder passes")
	}
}

func TestProvisioningIsExpandedAsGrafanaDoes(t *testing.T) {
	directory := t.TempDir()
	write := func(kind, text string) {
		path := filepath.Join(directory, kind)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "a.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("datasources", "apiVersion: 1\ndatasources:\n- {name: Q, uid: q, type: t, url: $URL, jsonData: {link: '${URL}/$${__value.raw}'}}\n")
	write("dashboards", "apiVersion: 1\nproviders:\n- {name: p, type: file, options: {path: $URL}}\n")
	write("alerting", "apiVersion: 1\ngroups:\n- {name: g, folder: f, interval: 1m, rules: [{uid: u, title: $URL, data: [{refId: A, datasourceUid: q, model: {sql: $__timeFilter(t)}}]}]}\n")
	found, err := ReadProvisioning(directory, map[string]string{"URL": "http://x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := found.Datasources[0]; got.URL != "http://x" || got.JSONData["link"] != "http://x/${__value.raw}" {
		t.Errorf("data source %+v", got)
	}
	if rule := found.Groups[0].Rules[0]; rule.Title != "http://x" || rule.Data[0].Model["sql"] != "$__timeFilter(t)" {
		t.Errorf("rule %+v: a model stays as it is", rule)
	}
	if _, err := ReadProvisioning(directory, map[string]string{}); err == nil || !strings.Contains(err.Error(), "URL") {
		t.Errorf("a name that the environment does not have: %v", err)
	}
	write("datasources", "apiVersion: 1\ndatasources:\n- {name: Q, uid: q, type: t, ur: typo}\n")
	if _, err := ReadProvisioning(directory, map[string]string{"URL": "x"}); err == nil || !strings.Contains(err.Error(), "ur") {
		t.Errorf("a misspelt member: %v", err)
	}
}
