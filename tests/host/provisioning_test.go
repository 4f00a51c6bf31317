package host

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"gopkg.in/yaml.v3"

	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
	"quiver/tests/host/workload"
)

const provisioningDirectory = "../../provisioning"

// provisioned is a host whose data source is the provisioned one, over the demo's lines of the last ten minutes.
func provisioned(t *testing.T) (*host, grafana.Provisioning) {
	t.Helper()
	return provisionedOver(t, 10*time.Minute)
}

func provisionedOver(t *testing.T, history time.Duration) (*host, grafana.Provisioning) {
	t.Helper()
	h := newHost(t, sampledOften)
	found, err := grafana.ReadProvisioning(provisioningDirectory, map[string]string{
		"QUIVER_URL": "http://" + h.store.GRPC, "JAEGER_URL": "http://127.0.0.1:16686",
		"JAEGER_EXTERNAL_URL": "http://jaeger.example:16686", "GF_PATHS_PROVISIONING": "/etc/grafana/provisioning",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, datasource := range found.Datasources {
		if datasource.Type == grafana.PluginID {
			h.instance = datasource.Instance()
			h.instance.Updated = time.Now() // another store under the same uid is another setting
		}
	}
	shop, err := workload.Open(h.context(), h.client(), workload.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := shop.History(h.context(), history); err != nil {
		t.Fatal(err)
	}
	if err := shop.Close(h.context()); err != nil {
		t.Fatal(err)
	}
	return h, found
}

func TestProvisionedDatasources(t *testing.T) {
	h, found := provisioned(t)
	byUID := map[string]grafana.Datasource{}
	for _, datasource := range found.Datasources {
		byUID[datasource.UID] = datasource
	}
	quiver, jaeger := byUID["quiver"], byUID["jaeger"]
	if quiver.Type != grafana.PluginID || jaeger.Type != "jaeger" || !quiver.IsDefault {
		t.Fatalf("data sources %+v", byUID)
	}
	if result := health(t, h.instance); result.Status != backend.HealthStatusOk {
		t.Errorf("health: %s", result.Message)
	}
	frame := h.frame(query.Logs("A", query.Filter{Field: "trace_id", Op: "exists"}), time.Now().Add(-time.Hour), time.Now())
	links := field(t, frame, "trace_id").Config.Links
	uids, urls := "", ""
	for _, link := range links {
		if link.Internal != nil {
			uids += link.Internal.DatasourceUID
			continue
		}
		urls += link.URL
	}
	if uids != jaeger.UID+quiver.UID || urls != "http://jaeger.example:16686/trace/${__value.raw}" {
		t.Errorf("the lines link to %q and %q", uids, urls)
	}
}

// From a trace in Jaeger back to its lines, as Explore does it: the field's value goes into the target's query, and the
// range is that of the span.
func TestProvisionedCorrelation(t *testing.T) {
	h, found := provisioned(t)
	var correlation grafana.Correlation
	for _, datasource := range found.Datasources {
		for _, one := range datasource.Correlations {
			correlation = one
		}
	}
	// Grafana takes label and description for texts without looking, and refuses a config without its type.
	if correlation.TargetUID != "quiver" || correlation.Label == "" || correlation.Description == "" || correlation.Config.Type != "query" {
		t.Fatalf("correlation %+v", correlation)
	}
	if correlation.Config.Field != "traceID" {
		t.Errorf("field %q, and Jaeger's frame has traceID", correlation.Config.Field)
	}
	lines := h.frame(query.Logs("A", query.Is("service", "ledger")), time.Now().Add(-time.Hour), time.Now())
	id := texts(t, field(t, lines, "trace_id"))[0]
	span := times(t, field(t, lines, "timestamp"))[0]
	target, err := json.Marshal(correlation.Config.Target)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(target), "${traceID}") {
		t.Fatalf("target %s has no ${traceID}: is a dollar missing?", target)
	}
	model := json.RawMessage(strings.ReplaceAll(string(target), "${traceID}", id))
	response := h.responses(nil, query.Raw("A", model, span, span.Add(time.Millisecond)))["A"]
	if response.Error != nil {
		t.Fatal(response.Error)
	}
	services := map[string]bool{}
	for row := range response.Frames[0].Rows() {
		if got := texts(t, field(t, response.Frames[0], "trace_id"))[row]; got != id {
			t.Errorf("a line of trace %q", got)
		}
		services[labelsAt(t, response.Frames[0], row)["service"]] = true
	}
	for _, service := range []string{"bff", "payments-api", "ledger", "worker"} {
		if !services[service] {
			t.Errorf("no line of %s in the trace; services are %v", service, slices.Sorted(maps.Keys(services)))
		}
	}
}

var expressionReference = regexp.MustCompile(`\$(\w+)`)

func TestProvisionedAlertRules(t *testing.T) {
	h, found := provisioned(t)
	if len(found.Groups) == 0 {
		t.Fatal("no alert group")
	}
	for _, group := range found.Groups {
		if group.Name == "" || group.Folder == "" {
			t.Errorf("group %q in folder %q", group.Name, group.Folder)
		}
		mustDuration(t, group.Interval)
		for _, rule := range group.Rules {
			t.Run(rule.Title, func(t *testing.T) {
				h := *h
				h.t = t
				checkRule(&h, rule)
			})
		}
	}
}

func mustDuration(t *testing.T, text string) {
	t.Helper()
	if _, err := time.ParseDuration(text); err != nil {
		t.Error(err)
	}
}

func checkRule(h *host, rule grafana.AlertRule) {
	t := h.t
	t.Helper()
	mustDuration(t, rule.For)
	if rule.UID == "" || !slices.Contains([]string{"OK", "NoData", "Alerting", "KeepLast"}, rule.NoDataState) ||
		!slices.Contains([]string{"OK", "Error", "Alerting", "KeepLast"}, rule.ExecErrState) {
		t.Errorf("uid %q, states %q and %q", rule.UID, rule.NoDataState, rule.ExecErrState)
	}
	if rule.DashboardUID != "" {
		checkRulePanel(t, rule)
	}
	known := map[string]map[string]float64{}
	for _, part := range rule.Data {
		if part.DatasourceUID != grafana.ExpressionUID {
			known[part.RefID] = askForAlert(h, part)
			continue
		}
		expression, _ := part.Model["expression"].(string)
		switch part.Model["type"] {
		case "math":
			names := expressionReference.FindAllStringSubmatch(expression, -1)
			if len(names) == 0 {
				t.Errorf("math expression %q names no query: is a dollar missing or doubled?", expression)
			}
			for _, name := range names {
				if known[name[1]] == nil {
					t.Errorf("expression %q names %q, which does not come before it", expression, name[1])
				}
			}
			known[part.RefID] = known[names[0][1]]
		case "threshold", "reduce":
			if known[expression] == nil {
				t.Errorf("expression %s is about %q, which does not come before it", part.RefID, expression)
			}
			known[part.RefID] = known[expression]
		default:
			t.Errorf("expression type %v is not checked here", part.Model["type"])
		}
	}
	if known[rule.Condition] == nil {
		t.Errorf("condition %q is none of the parts", rule.Condition)
	}
	checkShares(t, known["A"], known["B"])
	checkAnnotations(t, rule)
}

func checkRulePanel(t *testing.T, rule grafana.AlertRule) {
	t.Helper()
	for _, dashboard := range dashboards(t) {
		if dashboard.UID == rule.DashboardUID {
			if _, err := dashboard.Panel(int(rule.PanelID)); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("the rule belongs to dashboard %q, which is not provisioned", rule.DashboardUID)
}

func askForAlert(h *host, part grafana.AlertQuery) map[string]float64 {
	h.t.Helper()
	if part.DatasourceUID != h.instance.UID {
		h.t.Fatalf("query %s asks data source %q", part.RefID, part.DatasourceUID)
	}
	model, err := part.JSON()
	if err != nil {
		h.t.Fatal(err)
	}
	// The rule looks at one minute; here at ten times that, so that a service which logs little is in it.
	part.RelativeTimeRange.From *= 10
	from, to := part.Range(time.Now())
	response := h.responses(fromAlert, query.Raw(part.RefID, model, from, to))[part.RefID]
	if response.Error != nil {
		h.t.Fatalf("query %s: %v", part.RefID, response.Error)
	}
	return wantNumbers(h.t, response.Frames)
}

// checkShares checks that errors and lines have the same labels, for math joins by them, and that the share makes sense.
func checkShares(t *testing.T, errors, lines map[string]float64) {
	t.Helper()
	if got, want := slices.Sorted(maps.Keys(errors)), slices.Sorted(maps.Keys(lines)); !slices.Equal(got, want) || len(got) != 8 {
		t.Errorf("errors of %v and lines of %v, want the same 8 services", got, want)
	}
	some := 0.0
	for labels, count := range errors {
		if count > lines[labels] {
			t.Errorf("{%s} has %v errors of %v lines", labels, count, lines[labels])
		}
		some += count
	}
	if some == 0 {
		t.Error("the demo has no errors")
	}
}

// checkAnnotations runs the texts as Grafana's templates, where .Labels and .Values are what alerting puts in.
func checkAnnotations(t *testing.T, rule grafana.AlertRule) {
	t.Helper()
	type number struct{ Value float64 }
	for name, text := range rule.Annotations {
		parsed, err := template.New(name).Parse(text)
		if err != nil {
			t.Errorf("annotation %q: %v", name, err)
			continue
		}
		var out strings.Builder
		err = parsed.Option("missingkey=error").Execute(&out, map[string]any{
			"Labels": map[string]string{"service": "payments-api"},
			"Values": map[string]number{"A": {12}, "B": {100}, "C": {12}, "D": {1}},
		})
		if err != nil || !strings.Contains(out.String(), "payments-api") || !strings.Contains(out.String(), "12") {
			t.Errorf("annotation %q becomes %q (%v)", name, out.String(), err)
		}
	}
}

// docker-compose.yaml cannot run here; what it names must exist, and it must set what provisioning reads.
func TestComposeFile(t *testing.T) {
	text, err := os.ReadFile("../../docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Build struct {
				Context, Dockerfile, Target string
			}
			Environment map[string]string
			Volumes     []string
			DependsOn   map[string]any `yaml:"depends_on"`
		}
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range compose.Services {
		if target := service.Build.Target; target != "" && !regexp.MustCompile(`(?m)^FROM .* AS `+target+`$`).Match(dockerfile) {
			t.Errorf("service %q is built to %q, which the Dockerfile does not have", name, target)
		}
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if strings.HasPrefix(source, "./") {
				if _, err := os.Stat(filepath.Join("../..", source)); err != nil {
					t.Errorf("service %q: %v", name, err)
				}
			}
		}
		for other := range service.DependsOn {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("service %q waits for %q, which is none", name, other)
			}
		}
	}
	if _, err := grafana.ReadProvisioning(provisioningDirectory, compose.Services["grafana"].Environment); err != nil {
		t.Errorf("the environment of the service grafana: %v", err)
	}
}
