package grafana

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/useragent"
)

// Instance is a configured data source: what stands in the form of its settings.
type Instance struct {
	UID           string
	Name          string
	URL           string
	JSONData      map[string]any
	Secrets       map[string]string
	BasicAuth     bool
	BasicAuthUser string
	// Updated tells the plugin that the settings changed; the zero value is a fixed day.
	Updated time.Time
}

// Traces are the settings of the links from a line to its trace.
type Traces struct {
	DatasourceUID  string   `json:"datasourceUid"`
	DatasourceName string   `json:"datasourceName"`
	FieldNames     []string `json:"fieldNames"`
	ExternalURL    string   `json:"externalUrl"`
}

// NewInstance is a data source for the store at the given gRPC address, with no optional setting.
func NewInstance(grpcAddress string) Instance {
	return Instance{UID: "quiver", Name: "Quiver", URL: "http://" + grpcAddress, JSONData: map[string]any{}}
}

func (i Instance) pluginContext() backend.PluginContext {
	settings, err := json.Marshal(i.JSONData)
	if err != nil {
		panic(fmt.Sprintf("settings of data source %q are not JSON: %v", i.UID, err))
	}
	updated := i.Updated
	if updated.IsZero() {
		updated = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	agent, err := useragent.New(Version, "linux", "amd64")
	if err != nil {
		panic(fmt.Sprintf("user agent of Grafana %s: %v", Version, err))
	}
	return backend.PluginContext{
		OrgID:         1,
		PluginID:      PluginID,
		PluginVersion: "0.1.0",
		User:          &backend.User{Login: "admin", Name: "admin", Email: "admin@localhost", Role: "Admin"},
		DataSourceInstanceSettings: &backend.DataSourceInstanceSettings{
			ID:                      1,
			UID:                     i.UID,
			Type:                    PluginID,
			Name:                    i.Name,
			URL:                     i.URL,
			BasicAuthEnabled:        i.BasicAuth,
			BasicAuthUser:           i.BasicAuthUser,
			JSONData:                settings,
			DecryptedSecureJSONData: i.Secrets,
			Updated:                 updated,
		},
		GrafanaConfig: backend.NewGrafanaCfg(map[string]string{
			backend.AppURL:               "http://localhost:3000/",
			backend.ConcurrentQueryCount: "10",
		}),
		UserAgent: agent,
	}
}
