package grafana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Datasource is an entry of provisioning/datasources.
type Datasource struct {
	Name            string
	UID             string
	Type            string
	Access          string
	URL             string
	IsDefault       bool `yaml:"isDefault"`
	Editable        bool
	BasicAuth       bool              `yaml:"basicAuth"`
	BasicAuthUser   string            `yaml:"basicAuthUser"`
	JSONData        map[string]any    `yaml:"jsonData"`
	SecureJSONData  map[string]string `yaml:"secureJsonData"`
	Correlations    []Correlation
	WithCredentials bool  `yaml:"withCredentials"`
	OrgID           int64 `yaml:"orgId"`
	Version         int
}

// Correlation is a link that Explore shows at a field of a data source's results.
type Correlation struct {
	TargetUID   string `yaml:"targetUID"`
	Label       string
	Description string
	Config      struct {
		Type   string
		Field  string
		Target map[string]any
	}
}

// Instance is the data source as the plugin sees it.
func (d Datasource) Instance() Instance {
	return Instance{
		UID: d.UID, Name: d.Name, URL: d.URL, JSONData: d.JSONData, Secrets: d.SecureJSONData,
		BasicAuth: d.BasicAuth, BasicAuthUser: d.BasicAuthUser,
	}
}

// DashboardProvider is an entry of provisioning/dashboards.
type DashboardProvider struct {
	Name                  string
	OrgID                 int64 `yaml:"orgId"`
	Folder                string
	Type                  string
	DisableDeletion       bool `yaml:"disableDeletion"`
	AllowUIUpdates        bool `yaml:"allowUiUpdates"`
	UpdateIntervalSeconds int  `yaml:"updateIntervalSeconds"`
	Options               struct {
		Path                      string
		FoldersFromFilesStructure bool `yaml:"foldersFromFilesStructure"`
	}
}

// AlertGroup is a group of provisioning/alerting.
type AlertGroup struct {
	OrgID    int64 `yaml:"orgId"`
	Name     string
	Folder   string
	Interval string
	Rules    []AlertRule
}

// AlertRule is one rule of a group.
type AlertRule struct {
	UID          string
	Title        string
	Condition    string
	For          string
	NoDataState  string `yaml:"noDataState"`
	ExecErrState string `yaml:"execErrState"`
	DashboardUID string `yaml:"dashboardUid"`
	PanelID      int64  `yaml:"panelId"`
	Labels       map[string]string
	Annotations  map[string]string
	Data         []AlertQuery
}

// AlertQuery is a query or an expression of a rule.
type AlertQuery struct {
	RefID             string `yaml:"refId"`
	QueryType         string `yaml:"queryType"`
	DatasourceUID     string `yaml:"datasourceUid"`
	RelativeTimeRange struct {
		From, To int // seconds before now
	} `yaml:"relativeTimeRange"`
	Model map[string]any
}

// ExpressionUID is the data source of server-side expressions.
const ExpressionUID = "__expr__"

// Range is the query's time range when it is evaluated at now.
func (q AlertQuery) Range(now time.Time) (from, to time.Time) {
	return now.Add(-time.Duration(q.RelativeTimeRange.From) * time.Second),
		now.Add(-time.Duration(q.RelativeTimeRange.To) * time.Second)
}

// JSON is the stored model.
func (q AlertQuery) JSON() (json.RawMessage, error) { return json.Marshal(q.Model) }

// Provisioning is what a provisioning directory holds.
type Provisioning struct {
	Datasources []Datasource
	Providers   []DashboardProvider
	Groups      []AlertGroup
}

// ReadProvisioning reads every YAML file of the directory, strictly: a member that no type here knows is an error, for
// Grafana would ignore it. environment stands for the environment of Grafana.
func ReadProvisioning(directory string, environment map[string]string) (Provisioning, error) {
	var all Provisioning
	type version struct {
		APIVersion int `yaml:"apiVersion"`
	}
	read := func(kind string, file any, then func()) error {
		paths, err := filepath.Glob(filepath.Join(directory, kind, "*.yaml"))
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return fmt.Errorf("no YAML file in %q", filepath.Join(directory, kind))
		}
		for _, path := range paths {
			if err := readYAML(path, environment, file); err != nil {
				return err
			}
			then()
		}
		return nil
	}
	var datasources struct {
		version     `yaml:",inline"`
		Datasources []Datasource
	}
	var providers struct {
		version   `yaml:",inline"`
		Providers []DashboardProvider
	}
	var groups struct {
		version `yaml:",inline"`
		Groups  []AlertGroup
	}
	if err := read("datasources", &datasources, func() {
		all.Datasources = append(all.Datasources, datasources.Datasources...)
	}); err != nil {
		return all, err
	}
	if err := read("dashboards", &providers, func() {
		all.Providers = append(all.Providers, providers.Providers...)
	}); err != nil {
		return all, err
	}
	err := read("alerting", &groups, func() { all.Groups = append(all.Groups, groups.Groups...) })
	return all, err
}

func readYAML(path string, environment map[string]string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := expand(&document, environment, "", path); err != nil {
		return err
	}
	expanded, err := yaml.Marshal(&document)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(expanded))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// expand replaces $NAME and ${NAME} by the environment and $$ by $, in every text but those under `model`: Grafana
// takes an alert query's model as it stands (pkg/services/provisioning/alerting, QueryV1.mapToModel). A name that the
// environment does not have is an error here, where Grafana would silently put nothing.
func expand(node *yaml.Node, environment map[string]string, key, path string) error {
	if key == "model" {
		return nil
	}
	if node.Kind == yaml.ScalarNode && strings.Contains(node.Value, "$") {
		var missing []string
		parts := strings.Split(node.Value, "$$")
		for i, part := range parts {
			parts[i] = os.Expand(part, func(name string) string {
				value, ok := environment[name]
				if !ok {
					missing = append(missing, name)
				}
				return value
			})
		}
		if len(missing) > 0 {
			return fmt.Errorf("%s:%d: %q names %v, which the environment does not have", path, node.Line, node.Value, missing)
		}
		node.Value = strings.Join(parts, "$")
	}
	for i, child := range node.Content {
		key := ""
		if node.Kind == yaml.MappingNode && i%2 == 1 {
			key = node.Content[i-1].Value
		}
		if err := expand(child, environment, key, path); err != nil {
			return err
		}
	}
	return nil
}
