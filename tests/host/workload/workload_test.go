package workload

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

var quietHour = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func minutes(from time.Time, count int) []event {
	var events []event
	for second := range count * 60 {
		events = append(events, shop{seed: 1}.second(from.Add(time.Duration(second)*time.Second))...)
	}
	return events
}

func TestTheSameSeedAndTimeGiveTheSameLines(t *testing.T) {
	render := func() string {
		var all []string
		for _, e := range minutes(quietHour, 1) {
			all = append(all, e.service+" "+zapLine(e))
		}
		return strings.Join(all, "\n")
	}
	if render() != render() {
		t.Error("two runs differ")
	}
}

func TestEveryServiceHasARouteAndLogs(t *testing.T) {
	seen := map[string]int{}
	for _, e := range minutes(quietHour, 5) {
		seen[e.service]++
		routes := 0
		for _, has := range []bool{byLoki[e.service] != nil, byLokiJSON[e.service] != nil, byIngest[e.service] != nil, byOTLP[e.service] != ""} {
			if has {
				routes++
			}
		}
		if routes != 1 {
			t.Fatalf("service %q has %d routes", e.service, routes)
		}
		if _, ok := severities[e.level]; !ok && e.service != "nginx" {
			t.Fatalf("service %q logs level %q", e.service, e.level)
		}
	}
	if len(seen) != 8 {
		t.Errorf("services %v, want 8", slices.Sorted(maps.Keys(seen)))
	}
}

func TestAPaymentIsOneTraceOverItsServices(t *testing.T) {
	services := map[trace.TraceID]map[string]bool{}
	for _, e := range minutes(quietHour, 1) {
		if e.traceID.IsValid() {
			if services[e.traceID] == nil {
				services[e.traceID] = map[string]bool{}
			}
			services[e.traceID][e.service] = true
		}
	}
	for _, one := range services {
		if one["bff"] && one["payments-api"] && one["ledger"] && one["worker"] {
			return
		}
	}
	t.Error("no trace passes through bff, payments-api, ledger and worker")
}

func TestErrorsPassFivePercentInTheIncidentOnly(t *testing.T) {
	share := func(events []event) float64 {
		errors, all := 0.0, 0.0
		for _, e := range events {
			if e.service == "payments-api" {
				all++
				if e.level == "error" {
					errors++
				}
			}
		}
		return 100 * errors / all
	}
	if got := share(minutes(quietHour, 15)); got >= 5 || got == 0 {
		t.Errorf("%.1f %% errors on a quiet day, want some below 5", got)
	}
	if got := share(minutes(quietHour.Add(17*time.Minute), 3)); got < 20 {
		t.Errorf("%.1f %% errors in the incident, want 20 or more", got)
	}
}

func TestLinesAreWhatTheirFormatSays(t *testing.T) {
	for _, e := range minutes(quietHour, 1) {
		for name, line := range map[string]string{"zap": zapLine(e), "winston": winstonLine(e), "pino": pinoLine(e)} {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%s line is no JSON: %s", name, line)
			}
		}
		if line := tskvLine(e); strings.Count(line, "'")%2 != 0 {
			t.Fatalf("quotes do not match: %s", line)
		}
	}
}
