package grafana

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Dashboard is the part of a dashboard's JSON that decides what is asked and what is said of it.
type Dashboard struct {
	UID           string
	Title         string
	Description   string
	Tags          []string
	SchemaVersion int
	Panels        []Panel
	Templating    struct{ List []Variable }
	Annotations   struct{ List []Annotation }
	Links         []struct {
		Type        string
		Tags        []string
		IncludeVars bool
		KeepTime    bool
	}
}

// Panel is one panel of a dashboard, or a row of them.
type Panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	Datasource  DatasourceRef
	GridPos     struct{ X, Y, W, H int }
	Targets     []json.RawMessage
	Panels      []Panel // of a collapsed row
	FieldConfig struct {
		Defaults  struct{ Unit, DisplayName, NoValue string }
		Overrides []Override
	}
	Options struct {
		Content string // of a text
		XField  string // of a bar chart
	}
}

// Override is how a panel shows the fields that match.
type Override struct {
	Matcher    struct{ ID, Options string }
	Properties []struct {
		ID    string
		Value json.RawMessage
	}
}

// Annotation is a query whose rows are marked in the graphs of a dashboard.
type Annotation struct {
	Name       string
	Datasource DatasourceRef
	BuiltIn    int
	Target     json.RawMessage
}

// DatasourceRef names a data source, often by a variable.
type DatasourceRef struct{ Type, UID string }

// Variable is a template variable.
type Variable struct {
	Name       string
	Type       string
	Datasource DatasourceRef
	Multi      bool
	IncludeAll bool
	Query      json.RawMessage
	Current    struct{ Text, Value any }
}

// ReadDashboard reads a dashboard file.
func ReadDashboard(path string) (Dashboard, error) {
	var dashboard Dashboard
	text, err := os.ReadFile(path)
	if err != nil {
		return dashboard, err
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return dashboard, fmt.Errorf("%s: %w", path, err)
	}
	return dashboard, nil
}

// Panel is the panel with that id.
func (d Dashboard) Panel(id int) (Panel, error) {
	for _, panel := range d.Panels {
		if panel.ID == id {
			return panel, nil
		}
	}
	return Panel{}, fmt.Errorf("dashboard %q has no panel %d", d.Title, id)
}

// Shown is every panel, those of collapsed rows too, without the rows themselves.
func (d Dashboard) Shown() []Panel {
	var shown []Panel
	for _, panel := range d.Panels {
		if panel.Type == "row" {
			shown = append(shown, panel.Panels...)
			continue
		}
		shown = append(shown, panel)
	}
	return shown
}

// Values are the chosen values of a dashboard's variables. A variable that says "All" has a nil list.
type Values map[string][]string

// All is a choice of "All".
var All []string

var (
	variableReference = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`)
	literalOrVariable = regexp.MustCompile(`'(?:[^']|'')*'|` + variableReference.String())
)

// Interpolate puts the values into a stored query as frontend/src/variables.ts does: a builder filter on "All" or on
// nothing and a search for nothing fall away, lists take every value, and SQL gets them quoted. known gives the values that "All"
// stands for in SQL. Macros ($__…) stay for the plugin. An unknown variable is an error.
func Interpolate(model json.RawMessage, values, known Values) (json.RawMessage, error) {
	var members map[string]any
	if err := json.Unmarshal(model, &members); err != nil {
		return nil, err
	}
	if builder, ok := members["builder"].(map[string]any); ok {
		if err := interpolateBuilder(builder, values); err != nil {
			return nil, err
		}
	}
	if sql, ok := members["sql"].(string); ok {
		interpolated, err := interpolateSQL(sql, values, known)
		if err != nil {
			return nil, err
		}
		members["sql"] = interpolated
	}
	delete(members, "datasource")
	return json.Marshal(members)
}

func interpolateBuilder(builder map[string]any, values Values) error {
	var filters []any
	for _, raw := range list(builder["filters"]) {
		filter, ok := raw.(map[string]any)
		if !ok {
			return fmt.Errorf("filter %v is not an object", raw)
		}
		keep, err := interpolateFilter(filter, values)
		if err != nil {
			return err
		}
		if keep {
			filters = append(filters, filter)
		}
	}
	builder["filters"] = filters
	var searches []any
	for _, raw := range list(builder["search"]) {
		search, ok := raw.(map[string]any)
		if !ok {
			return fmt.Errorf("search %v is not an object", raw)
		}
		text, _ := search["text"].(string)
		chosen, _, err := valuesOf(text, values)
		if err != nil {
			return err
		}
		if search["text"] = strings.Join(chosen, ","); search["text"] != "" {
			searches = append(searches, search)
		}
	}
	builder["search"] = searches
	return nil
}

func interpolateFilter(filter map[string]any, values Values) (keep bool, err error) {
	if _, ok := filter["values"]; ok {
		var expanded []string
		for _, item := range list(filter["values"]) {
			text, _ := item.(string)
			chosen, all, err := valuesOf(text, values)
			if err != nil || all {
				return false, err
			}
			expanded = append(expanded, chosen...)
		}
		filter["values"] = expanded
		return true, nil
	}
	text, _ := filter["value"].(string)
	chosen, all, err := valuesOf(text, values)
	if err != nil || all {
		return false, err
	}
	filter["value"] = strings.Join(chosen, ",")
	op, _ := filter["op"].(string)
	return filter["value"] != "" || strings.HasSuffix(op, "exists"), nil
}

// valuesOf is the values of a text that is one variable, or the text itself.
func valuesOf(text string, values Values) (chosen []string, all bool, err error) {
	match := variableReference.FindStringSubmatch(text)
	if match == nil || match[0] != text {
		return []string{text}, false, nil
	}
	name := match[1] + match[2]
	chosen, ok := values[name]
	if !ok {
		return nil, false, fmt.Errorf("no variable %q", name)
	}
	return chosen, chosen == nil, nil
}

func interpolateSQL(sql string, values, known Values) (string, error) {
	var missing error
	put := func(quote string) func(string) string {
		return func(reference string) string {
			name := strings.Trim(reference, "${}")
			if strings.HasPrefix(name, "__") {
				return reference
			}
			chosen, ok := values[name]
			if !ok {
				missing = fmt.Errorf("no variable %q", name)
				return reference
			}
			if chosen == nil {
				chosen = known[name]
			}
			quoted := make([]string, len(chosen))
			for i, value := range chosen {
				quoted[i] = quote + strings.ReplaceAll(value, "'", "''") + quote
			}
			if len(quoted) == 0 && quote != "" {
				return "NULL"
			}
			return strings.Join(quoted, ",")
		}
	}
	text := literalOrVariable.ReplaceAllStringFunc(sql, func(part string) string {
		if strings.HasPrefix(part, "'") {
			return variableReference.ReplaceAllStringFunc(part, put(""))
		}
		return put("'")(part)
	})
	return text, missing
}

func list(value any) []any {
	items, _ := value.([]any)
	return items
}
