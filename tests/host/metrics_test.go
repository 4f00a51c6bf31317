package host

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/query"
)

// sampledOften has a store sample its own metrics so often that a test need not wait for it.
const sampledOften = "QUIVER_SERVER_SAMPLE_EVERY=100ms"

func (h *host) table(sql string) *data.Frame {
	h.t.Helper()
	return h.frame(query.SQL("A", "table", sql), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
}

// The store tells of itself by SQL: what it counts and how fast that grows, percentiles of what it times.
func TestTheStoresOwnMetrics(t *testing.T) {
	h := newHost(t, sampledOften)
	h.jsonLines(nowLine("a", "one"), nowLine("a", "two"), nowLine("b", "three"))
	eventually(t, "three lines are counted", func() bool {
		frame := h.table("SELECT max(value) AS lines, max(per_second) AS rate FROM metrics " +
			`WHERE name = 'quiver_ingest_records_total' AND labels = 'protocol="lines"'`)
		lines, ok := frame.Fields[0].ConcreteAt(0)
		return ok && lines == 3.0
	})
	names := func() []string { return texts(t, h.table("SELECT DISTINCT name FROM metrics ORDER BY name").Fields[0]) }
	for _, name := range []string{
		"quiver_server_query_duration_seconds_p95", "quiver_ingest_lag_seconds_p50", "quiver_storage_wal_sync_seconds_p99",
		"quiver_storage_disk_bytes", "quiver_storage_wal_disk_bytes", "quiver_memory_bytes", "process_cpu_seconds_total",
	} {
		eventually(t, "there is "+name, func() bool { return slices.Contains(names(), name) })
	}
	for _, name := range names() {
		if strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_info") {
			t.Errorf("%s is no number over time", name)
		}
	}
	// What is counted grows from its second sample on.
	const growing = "name IN ('quiver_ingest_records_total', 'process_cpu_seconds_total') AND per_second IS NOT NULL"
	eventually(t, "both grow", func() bool {
		found, ok := h.table("SELECT count(DISTINCT name) AS names FROM metrics WHERE " + growing).Fields[0].ConcreteAt(0)
		return ok && found == int64(2)
	})
	series := h.frames(query.SQL("A", "auto", "SELECT timestamp, name, per_second FROM metrics "+
		"WHERE $__timeFilter(timestamp) AND "+growing+" ORDER BY timestamp"), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if got := wantSeries(t, series); len(got) != 2 {
		t.Errorf("series %v, want two", got)
	}
}

// It is a table beside the lines, and none of their fields.
func TestTheTableOfMetricsIsNoField(t *testing.T) {
	h := newHost(t, sampledOften)
	h.jsonLines(nowLine("a", "one"), `{"service":"a","msg":"a field of that name","Value":"mine"}`)
	tables := texts(t, field(t, h.table("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"), "table_name"))
	sameText(t, "tables", tables, []string{"logs", "metrics"})
	var fields []column
	h.resource(http.MethodGet, "fields", nil, &fields)
	for _, field := range fields {
		if slices.Contains([]string{"name", "labels", "value", "per_second"}, field.Name) {
			t.Errorf("the field %q is offered, and no line has it", field.Name)
		}
	}
	sameText(t, "values", texts(t, h.table("SELECT value FROM logs WHERE value IS NOT NULL").Fields[0]), []string{"mine"})
}
