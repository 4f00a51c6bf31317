// Package query writes the plugin's query model, version 1, as a panel stores it.
//
// The definition stands in backend/src/model.rs and frontend/src/model.ts; this is the part that a caller needs to ask
// questions. Invariant: what is left at its zero value is not sent, so the plugin's defaults are exercised too.
package query

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

// Model is a query.
type Model struct {
	RefID   string   `json:"refId"`
	Version int      `json:"version,omitempty"`
	Editor  string   `json:"editor,omitempty"`
	Builder *Builder `json:"builder,omitempty"`
	SQL     string   `json:"sql,omitempty"`
	Filters []Filter `json:"filters,omitempty"`
	Format  string   `json:"format,omitempty"`
	Purpose string   `json:"purpose,omitempty"`
	Cursor  *Cursor  `json:"cursor,omitempty"`
	Widen   string   `json:"widen,omitempty"`
	Tenant  string   `json:"tenant,omitempty"`

	WholeLines bool `json:"wholeLines,omitempty"`
}

// Builder is a query put together by clicking.
type Builder struct {
	Filters   []Filter   `json:"filters,omitempty"`
	Search    []Search   `json:"search,omitempty"`
	Aggregate *Aggregate `json:"aggregate,omitempty"`
	GroupBy   []string   `json:"groupBy,omitempty"`
	Limit     int        `json:"limit,omitempty"`
	Direction string     `json:"direction,omitempty"`
	Step      string     `json:"step,omitempty"`
}

// Filter is a condition on a field.
type Filter struct {
	Field  string   `json:"field"`
	Op     string   `json:"op"`
	Value  string   `json:"value,omitempty"`
	Values []string `json:"values,omitempty"`
}

// Search is a condition on the message.
type Search struct {
	Op   string `json:"op"`
	Text string `json:"text"`
}

// Aggregate is a function over lines.
type Aggregate struct {
	Function string  `json:"function"`
	Field    string  `json:"field,omitempty"`
	Quantile float64 `json:"quantile,omitempty"`
}

// Cursor is a place between two lines.
type Cursor struct {
	TimestampNs string `json:"timestampNs"`
	Seq         string `json:"seq"`
	Direction   string `json:"direction"`
}

// Logs is a builder query for lines that meet every filter.
func Logs(refID string, filters ...Filter) Model {
	return Model{RefID: refID, Version: 1, Editor: "builder", Builder: &Builder{Filters: filters}}
}

// SQL is a query in SQL mode.
func SQL(refID, format, sql string) Model {
	return Model{RefID: refID, Version: 1, Editor: "sql", SQL: sql, Format: format}
}

// Is is the filter field = value.
func Is(field, value string) Filter { return Filter{Field: field, Op: "=", Value: value} }

// JSON is the model as a panel stores it.
func (m Model) JSON() json.RawMessage {
	encoded, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("query model %q is not JSON: %v", m.RefID, err)) // strings and numbers only
	}
	return encoded
}

// Over is the model as Grafana sends it for a time range, with the interval Grafana computes for 1000 points.
func (m Model) Over(from, to time.Time) backend.DataQuery {
	return Raw(m.RefID, m.JSON(), from, to)
}

// pointsMax is the maxDataPoints of a panel 1000 pixels wide.
const pointsMax = 1000

// Raw is a stored query as Grafana sends it for a time range: members of Grafana's own are added to the model.
func Raw(refID string, model json.RawMessage, from, to time.Time) backend.DataQuery {
	interval := roundInterval(to.Sub(from) / pointsMax)
	members := map[string]any{}
	if err := json.Unmarshal(model, &members); err == nil {
		members["datasource"] = map[string]any{"type": "quiver-logs-datasource", "uid": "quiver"}
		members["intervalMs"] = interval.Milliseconds()
		members["maxDataPoints"] = pointsMax
		if encoded, err := json.Marshal(members); err == nil {
			model = encoded
		}
	}
	return backend.DataQuery{
		RefID:         refID,
		MaxDataPoints: pointsMax,
		Interval:      interval,
		TimeRange:     backend.TimeRange{From: from, To: to},
		JSON:          model,
	}
}

// roundInterval picks the next larger step that Grafana's own rounding knows.
func roundInterval(raw time.Duration) time.Duration {
	steps := []time.Duration{
		time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 3 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	}
	for _, step := range steps {
		if raw <= step {
			return step
		}
	}
	return 24 * time.Hour
}
