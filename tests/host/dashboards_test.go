package host

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
)

const pluginManifest = "../../plugin.json"

// wholeStory is a time in which the demo has everything: an incident, a release and its rollback, a pod out of memory.
const wholeStory = 31 * time.Minute

var chosen = grafana.DatasourceRef{Type: grafana.PluginID, UID: "${datasource}"}

func dashboardFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(provisioningDirectory, "dashboards", "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("dashboards: %v, %v", paths, err)
	}
	return paths
}

func dashboards(t *testing.T) []grafana.Dashboard {
	t.Helper()
	var all []grafana.Dashboard
	for _, path := range dashboardFiles(t) {
		dashboard, err := grafana.ReadDashboard(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, dashboard)
	}
	return all
}

// Grafana offers what the manifest names; webpack copies provisioning/dashboards to dist/dashboards.
func TestManifestIncludesEveryDashboard(t *testing.T) {
	text, err := os.ReadFile(pluginManifest)
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Includes []struct{ Type, Name, Path string }
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	included := map[string]string{}
	for _, include := range manifest.Includes {
		if include.Type == "dashboard" {
			included[include.Path] = include.Name
		}
	}
	files := dashboardFiles(t)
	for i, dashboard := range dashboards(t) {
		if path := "dashboards/" + filepath.Base(files[i]); included[path] != dashboard.Title {
			t.Errorf("the manifest calls %s %q, and its title is %q", path, included[path], dashboard.Title)
		}
	}
	if len(included) != len(files) {
		t.Errorf("the manifest includes %v, and the files are %v", included, files)
	}
}

func TestDashboardsAreWellFormed(t *testing.T) {
	uids := map[string]bool{}
	for _, dashboard := range dashboards(t) {
		if dashboard.UID == "" || uids[dashboard.UID] || dashboard.Title == "" || dashboard.Description == "" {
			t.Errorf("dashboard %q: uid %q, description %q", dashboard.Title, dashboard.UID, dashboard.Description)
		}
		uids[dashboard.UID] = true
		if dashboard.SchemaVersion != 42 {
			t.Errorf("dashboard %q has schema version %d, want Grafana 12.3's 42", dashboard.Title, dashboard.SchemaVersion)
		}
		if links := dashboard.Links; !slices.Contains(dashboard.Tags, "quiver") || len(links) != 1 ||
			!slices.Contains(links[0].Tags, "quiver") || !links[0].IncludeVars || !links[0].KeepTime {
			t.Errorf("dashboard %q does not lead to the others with time and variables: tags %v, links %+v", dashboard.Title, dashboard.Tags, links)
		}
		ids := map[int]bool{}
		for _, panel := range dashboard.Shown() {
			if ids[panel.ID] || panel.Title == "" || panel.Description == "" {
				t.Errorf("panel %d %q of %q: the id is used twice, or there is no title or description", panel.ID, panel.Title, dashboard.Title)
			}
			ids[panel.ID] = true
			if !explainsEmpty(panel) {
				t.Errorf("panel %q of %q does not say what it means that it is empty", panel.Title, dashboard.Title)
			}
		}
		wantLayout(t, dashboard)
		last := dashboard.Panels[len(dashboard.Panels)-1]
		if last.Type != "row" || len(last.Panels) != 1 || !strings.Contains(last.Panels[0].Options.Content, "/loki/api/v1/push") {
			t.Errorf("dashboard %q does not end with how to send lines", dashboard.Title)
		}
	}
}

// explainsEmpty: of Grafana's panels, tables and lists of lines have no text of ours in the place of data.
func explainsEmpty(panel grafana.Panel) bool {
	switch panel.Type {
	case "text":
		return true
	case "table", "logs":
		return strings.Contains(panel.Description, "Empty: ")
	}
	return panel.FieldConfig.Defaults.NoValue != ""
}

func wantLayout(t *testing.T, dashboard grafana.Dashboard) {
	t.Helper()
	taken := map[[2]int]string{}
	for _, panel := range dashboard.Panels {
		at := panel.GridPos
		if at.W < 1 || at.H < 1 || at.X < 0 || at.X+at.W > 24 {
			t.Errorf("panel %q lies outside the 24 columns: %+v", panel.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
}

// A dashboard that is imported knows no data source of ours by its uid.
func TestDashboardsNameNoDatasource(t *testing.T) {
	for _, dashboard := range dashboards(t) {
		for _, panel := range dashboard.Shown() {
			if panel.Type != "text" && panel.Datasource != chosen {
				t.Errorf("panel %q of %q asks %+v", panel.Title, dashboard.Title, panel.Datasource)
			}
			for _, target := range panel.Targets {
				var asked struct{ Datasource grafana.DatasourceRef }
				if err := json.Unmarshal(target, &asked); err != nil || asked.Datasource != chosen {
					t.Errorf("a query of panel %q of %q asks %+v (%v)", panel.Title, dashboard.Title, asked.Datasource, err)
				}
			}
		}
		for _, annotation := range dashboard.Annotations.List {
			if annotation.BuiltIn == 0 && annotation.Datasource != chosen {
				t.Errorf("annotation %q of %q asks %+v", annotation.Name, dashboard.Title, annotation.Datasource)
			}
		}
		first := dashboard.Templating.List[0]
		if first.Name != "datasource" || first.Type != "datasource" || first.Current.Value != "default" || string(first.Query) != `"`+grafana.PluginID+`"` {
			t.Errorf("dashboard %q chooses its data source by %+v", dashboard.Title, first)
		}
		for _, variable := range dashboard.Templating.List {
			if variable.Type == "query" && (variable.Datasource != chosen || !variable.Multi || !variable.IncludeAll) {
				t.Errorf("variable %q of %q asks %+v, many values %v", variable.Name, dashboard.Title, variable.Datasource, variable.Multi)
			}
		}
	}
}

var linkedVariable = regexp.MustCompile(`var-(\w+)=`)

// A link in a cell leads to a dashboard that is there, and sets variables that it has.
func TestDashboardLinks(t *testing.T) {
	variables := map[string][]string{}
	for _, dashboard := range dashboards(t) {
		for _, variable := range dashboard.Templating.List {
			variables[dashboard.UID] = append(variables[dashboard.UID], variable.Name)
		}
	}
	links := 0
	for _, dashboard := range dashboards(t) {
		for _, panel := range dashboard.Shown() {
			for _, override := range panel.FieldConfig.Overrides {
				for _, property := range override.Properties {
					if property.ID != "links" {
						continue
					}
					var set []struct{ Title, URL string }
					if err := json.Unmarshal(property.Value, &set); err != nil {
						t.Fatal(err)
					}
					for _, link := range set {
						links++
						uid, _, _ := strings.Cut(strings.TrimPrefix(link.URL, "/d/"), "?")
						if variables[uid] == nil || link.Title == "" || !strings.Contains(link.URL, "${__url_time_range}") {
							t.Errorf("panel %q of %q links to %q", panel.Title, dashboard.Title, link.URL)
						}
						for _, name := range linkedVariable.FindAllStringSubmatch(link.URL, -1) {
							if !slices.Contains(variables[uid], name[1]) {
								t.Errorf("%q sets %q, which %q does not have", link.URL, name[1], uid)
							}
						}
					}
				}
			}
		}
	}
	if links == 0 {
		t.Error("no cell links to a dashboard")
	}
}

// opened is a dashboard with what stands for its variables.
type opened struct {
	*host
	dashboard grafana.Dashboard
	values    grafana.Values // as it opens
	known     grafana.Values // what "All" stands for
	from, to  time.Time
}

// open asks for the values of the dashboard's variables, as Grafana does before the panels.
func open(h *host, dashboard grafana.Dashboard) opened {
	h.t.Helper()
	now := time.Now()
	a := opened{h, dashboard, grafana.Values{}, grafana.Values{}, now.Add(-wholeStory), now}
	for _, variable := range dashboard.Templating.List {
		switch variable.Type {
		case "query":
			a.values[variable.Name] = grafana.All
		case "custom", "textbox":
			a.values[variable.Name] = []string{fmt.Sprint(variable.Current.Value)}
		}
	}
	for _, variable := range dashboard.Templating.List {
		if variable.Type == "query" {
			a.known[variable.Name] = a.valuesOf(variable)
		}
	}
	return a
}

func (a opened) valuesOf(variable grafana.Variable) []string {
	a.t.Helper()
	var question struct{ Kind, Field, SQL string }
	if err := json.Unmarshal(variable.Query, &question); err != nil {
		a.t.Fatal(err)
	}
	var values []string
	if question.Kind == "values" {
		var answer []valueCount
		a.resource(http.MethodGet, fmt.Sprintf("fields/values?field=%s&from=%d&to=%d", question.Field, a.from.UnixMilli(), a.to.UnixMilli()), nil, &answer)
		for _, value := range answer {
			values = append(values, value.Value)
		}
		return values
	}
	model, err := json.Marshal(map[string]string{"editor": "sql", "format": "table", "sql": question.SQL})
	if err != nil {
		a.t.Fatal(err)
	}
	if frames := a.ask(model, a.values); len(frames) > 0 && frames[0].Rows() > 0 {
		values = texts(a.t, frames[0].Fields[0])
	}
	return values
}

func (a opened) ask(target json.RawMessage, values grafana.Values) data.Frames {
	a.t.Helper()
	model, err := grafana.Interpolate(target, values, a.known)
	if err != nil {
		a.t.Fatal(err)
	}
	request := query.Raw("A", model, a.from, a.to)
	request.Interval, request.MaxDataPoints = 30*time.Second, 240
	response := a.responses(nil, request)["A"]
	if response.Error != nil {
		a.t.Fatalf("%v\n%s", response.Error, model)
	}
	return response.Frames
}

// Every panel of every dashboard over the demo's lines: as it opens, and with the choices that people make.
func TestEveryPanelHasData(t *testing.T) {
	h, _ := provisionedOver(t, wholeStory)
	eventually(t, "the store's own metrics tell of lines and of queries", func() bool {
		return h.table("SELECT DISTINCT name FROM metrics WHERE per_second IS NOT NULL AND name = 'quiver_server_query_requests_total' "+
			"OR name IN ('quiver_server_query_duration_seconds_p50', 'quiver_ingest_lag_seconds_p50', 'quiver_storage_wal_sync_seconds_p95')").Rows() == 4
	})
	choices := map[string]grafana.Values{
		"all":      {},
		"two":      {"service": {"payments-api", "bff"}, "level": {"error", "info"}, "namespace": {"shop", "platform"}},
		"searched": {"search": {"e"}, "path": {"/api/"}},
	}
	for _, dashboard := range dashboards(t) {
		a := open(h, dashboard)
		for name, values := range a.known {
			if len(values) == 0 {
				t.Errorf("variable %q of %q has no values", name, dashboard.Title)
			}
		}
		for choice, values := range choices {
			for _, panel := range dashboard.Shown() {
				t.Run(dashboard.Title+"/"+panel.Title+"/"+choice, func(t *testing.T) {
					a := a.with(t)
					for _, target := range panel.Targets {
						wantPanel(t, panel, a.ask(target, a.choosing(values)))
					}
				})
			}
		}
	}
}

// with is the same for a test within the test.
func (a opened) with(t *testing.T) opened {
	h := *a.host
	h.t = t
	a.host = &h
	return a
}

// choosing is the values as the dashboard opens, but for those of its variables that are chosen.
func (a opened) choosing(values grafana.Values) grafana.Values {
	all := grafana.Values{}
	for name, value := range a.values {
		all[name] = value
		if instead, ok := values[name]; ok {
			all[name] = instead
		}
	}
	return all
}

// A field that no line has is nothing to show, and never an error: first over no lines at all, then over lines that have
// none of the fields which the dashboards read.
func TestEveryPanelIsEmptyWithoutError(t *testing.T) {
	h := newHost(t)
	for _, state := range []string{"no lines", "other lines"} {
		for _, dashboard := range dashboards(t) {
			a := open(h, dashboard)
			for _, panel := range dashboard.Shown() {
				t.Run(state+"/"+dashboard.Title+"/"+panel.Title, func(t *testing.T) {
					a := a.with(t)
					for _, target := range panel.Targets {
						a.ask(target, a.values)
					}
				})
			}
		}
		h.jsonLines(`{"msg":"a line of nobody","color":"red"}`)
	}
}

// One naming at a time: the others' lines are not shown.
func TestKubernetesFieldNames(t *testing.T) {
	h, _ := provisioned(t)
	for _, dashboard := range dashboards(t) {
		if dashboard.UID != "quiver-kubernetes" {
			continue
		}
		for naming, want := range map[string][]string{
			"any": {"devices", "edge", "platform", "shop"}, "loki": {"devices", "edge", "platform", "shop"}, "otel": {"shop"}, "fluentbit": nil,
		} {
			a := open(h, dashboard)
			a.values["names"] = []string{naming}
			for _, variable := range dashboard.Templating.List {
				if variable.Name == "namespace" {
					if got := a.valuesOf(variable); !slices.Equal(got, want) {
						t.Errorf("namespaces named as by %q are %q, want %q", naming, got, want)
					}
				}
			}
		}
		return
	}
	t.Error("no dashboard of Kubernetes")
}

// The releases of the demo are marked in the graphs.
func TestDeployAnnotations(t *testing.T) {
	h, _ := provisionedOver(t, wholeStory)
	marked := 0
	for _, dashboard := range dashboards(t) {
		a := open(h, dashboard)
		for _, annotation := range dashboard.Annotations.List {
			if annotation.BuiltIn != 0 {
				continue
			}
			frame := a.ask(annotation.Target, a.values)[0]
			for row, text := range texts(t, field(t, frame, "text")) {
				if tag := texts(t, field(t, frame, "tags"))[row]; tag != "scheduler" || !strings.Contains(text, "deployed payments-api") {
					t.Errorf("mark %q of %q", text, tag)
				}
			}
			marked += len(times(t, field(t, frame, "time")))
		}
	}
	if marked < 2 {
		t.Errorf("%d marks, want a release and its rollback", marked)
	}
}

var labelShown = regexp.MustCompile(`^\$\{__field\.labels\.(\w+)\}$`)

// wantPanel checks that the frames are what a panel of this kind draws, and have the fields it is set up for.
func wantPanel(t *testing.T, panel grafana.Panel, frames data.Frames) {
	t.Helper()
	if len(frames) == 0 || frames[0].Rows() == 0 {
		t.Fatalf("panel %q has no data", panel.Title)
	}
	switch panel.Type {
	case "logs":
		wantLogLines(t, frames[0])
	case "timeseries", "status-history":
		if series := wantSeries(t, frames); len(series) == 0 {
			t.Error("no series")
		}
		if label := labelShown.FindStringSubmatch(panel.FieldConfig.Defaults.DisplayName); label != nil {
			for _, frame := range frames {
				if _, ok := frame.Fields[1].Labels[label[1]]; !ok {
					t.Errorf("a series is called by its %s, and has only the labels %v", label[1], frame.Fields[1].Labels)
				}
			}
		}
	case "stat":
		if numbers := wantNumbers(t, frames); len(numbers) != 1 {
			t.Errorf("numbers %v, and one is shown", numbers)
		}
	case "table", "barchart":
		if len(frames) != 1 || len(frames[0].Fields) < 2 {
			t.Fatalf("%d frames, fields %v", len(frames), fieldNames(frames[0]))
		}
		if axis := panel.Options.XField; axis != "" {
			field(t, frames[0], axis)
		}
		for _, override := range panel.FieldConfig.Overrides {
			if override.Matcher.ID == "byName" {
				field(t, frames[0], override.Matcher.Options)
			}
		}
	default:
		t.Errorf("panel type %q is not checked here", panel.Type)
	}
}
