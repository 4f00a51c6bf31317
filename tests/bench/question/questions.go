// Package question holds what the bench asks, in the language of each store, and compares what they answer.
//
// It knows no addresses. Invariant: the statements of a question mean the same; Same proves it for Quiver and DuckDB.
package question

import (
	"fmt"
	"time"

	"quiver/tests/bench/dataset"
	"quiver/tests/bench/records"
)

// Question is one row of the table in performance.md.
type Question struct {
	Name string
	// Quiver and DuckDB are SQL over a table `logs`. Whole lines are `_line` there, and all columns here.
	Quiver, DuckDB string
	// LogsQL is VictoriaLogs' form; newest is how many of the newest records are wanted, 0: all.
	LogsQL string
	Newest int
	// LogQL is Loki's form; empty: it can't be said.
	LogQL string
	// Step of a LogQL question over time; 0: an instant one, or lines.
	Step time.Duration
	// Bar is the most that our time may be of DuckDB's.
	Bar float64
	// Compared columns.
	Compared []string
	// Bounds is asked instead of DuckDB for the comparison, where ours is an estimate: for each compared column X with
	// fractions it has X_low and X_high.
	Bounds string
}

// NewestName is the question whose first row is timed too.
const NewestName = "newest 1000, no filter"

const (
	wholeOurs = "SELECT timestamp, level, service, message, trace_id, _line FROM logs"
	wholeDuck = "SELECT * FROM logs"
	allLoki   = `{service=~".+"}`
)

var wholeCompared = []string{"timestamp", "level", "service", "message", "trace_id"}

// All gives the questions for a dataset.
func All(data *dataset.Dataset) []Question {
	span := lokiDuration(data.Options.Records.Span)
	return append(lines(data.TraceID), append(series(span), columns(span)...)...)
}

// lines are the questions for whole lines.
func lines(traceID string) []Question {
	whole := func(name, condition, order string, bar float64) Question {
		return Question{
			Name: name, Quiver: wholeOurs + condition + order, DuckDB: wholeDuck + condition + order,
			Bar: bar, Compared: wholeCompared,
		}
	}
	const byTime, newest = " ORDER BY timestamp DESC", " ORDER BY timestamp DESC LIMIT 1000"
	rare := whole("rare token in message, whole lines", contains(records.RareToken), byTime, 0.010)
	rare.LogsQL, rare.LogQL = records.RareToken, allLoki+` |= "`+records.RareToken+`"`
	absent := whole("absent token", contains(records.AbsentToken), byTime, 0.005)
	absent.LogsQL, absent.LogQL = records.AbsentToken, allLoki+` |= "`+records.AbsentToken+`"`
	trace := whole("trace_id, whole lines", " WHERE trace_id = '"+traceID+"'", byTime, 0.10)
	trace.LogsQL, trace.LogQL = `trace_id:="`+traceID+`"`, allLoki+` |= "`+traceID+`"`
	filtered := whole("newest 1000, service + level", " WHERE service = 'payments-api' AND level = 'error'", newest, 0.012)
	filtered.LogsQL, filtered.LogQL = `service:="payments-api" level:="error"`, `{service="payments-api",level="error"}`
	all := whole(NewestName, "", newest, 0.013)
	all.LogsQL, all.LogQL = "*", allLoki
	declined := whole("newest 1000 with substring `declin`", contains("declin"), newest, 0.045)
	declined.LogsQL, declined.LogQL = `_msg:~"declin"`, allLoki+` |= "declin"`
	filtered.Newest, all.Newest, declined.Newest = 1000, 1000, 1000
	return []Question{rare, absent, trace, filtered, all, declined}
}

func contains(text string) string { return " WHERE contains(message, '" + text + "')" }

// series are counts, and counts over time.
func series(span string) []Question {
	ours := func(bucket string) string { return "date_bin(INTERVAL '" + bucket + "', timestamp) AS time" }
	duck := func(bucket string) string { return "time_bucket(INTERVAL '" + bucket + "', timestamp) AS time" }
	return []Question{
		{
			Name:   "count with substring across two tokens",
			Quiver: "SELECT count(*) AS n FROM logs" + contains("connection timed"),
			DuckDB: "SELECT count(*) AS n FROM logs" + contains("connection timed"),
			LogsQL: `_msg:~"connection timed" | stats count() n`,
			LogQL:  `sum(count_over_time(` + allLoki + ` |= "connection timed" [` + span + `]))`,
			Bar:    0.06, Compared: []string{"n"},
		},
		{
			Name:   "volume by level, 5 min buckets",
			Quiver: "SELECT " + ours("5 minutes") + ", level, count(*) AS n FROM logs GROUP BY 1, 2 ORDER BY 1",
			DuckDB: "SELECT " + duck("5 minutes") + ", level, count(*) AS n FROM logs GROUP BY 1, 2 ORDER BY 1",
			LogsQL: `* | stats by (_time:5m, level) count() n`,
			LogQL:  `sum by (level) (count_over_time(` + allLoki + `[5m]))`, Step: 5 * time.Minute,
			Bar: 0.05, Compared: []string{"time", "level", "n"},
		},
		{
			Name:   "errors by service, 1 min buckets",
			Quiver: "SELECT " + ours("1 minute") + ", service, count(*) AS n FROM logs WHERE level IN ('error', 'fatal') GROUP BY 1, 2 ORDER BY 1",
			DuckDB: "SELECT " + duck("1 minute") + ", service, count(*) AS n FROM logs WHERE level IN ('error', 'fatal') GROUP BY 1, 2 ORDER BY 1",
			LogsQL: `level:in(error, fatal) | stats by (_time:1m, service) count() n`,
			LogQL:  `sum by (service) (count_over_time({level=~"error|fatal"}[1m]))`, Step: time.Minute,
			Bar: 0.15, Compared: []string{"time", "service", "n"},
		},
		{
			Name:   "p95 of duration by service, 10 min",
			Quiver: "SELECT " + ours("10 minutes") + ", service, approx_percentile_cont(duration_ms, 0.95) AS p95 FROM logs GROUP BY 1, 2 ORDER BY 1",
			DuckDB: "SELECT " + duck("10 minutes") + ", service, quantile_cont(duration_ms, 0.95) AS p95 FROM logs GROUP BY 1, 2 ORDER BY 1",
			LogsQL: `* | stats by (_time:10m, service) quantile(0.95, duration_ms) p95`,
			LogQL:  `quantile_over_time(0.95, ` + allLoki + ` | json duration_ms="duration_ms" | unwrap duration_ms [10m]) by (service)`, Step: 10 * time.Minute,
			Bar: 0.30, Compared: []string{"time", "service", "p95"},
			// A sketch's error is one of rank; and which of two neighbours a percentile means is a matter of taste.
			Bounds: "SELECT " + duck("10 minutes") + ", service, quantile_cont(duration_ms, 0.93) AS p95_low, quantile_cont(duration_ms, 0.97) AS p95_high FROM logs GROUP BY 1, 2",
		},
	}
}

// columns are questions for values of fields.
func columns(span string) []Question {
	both := func(name, sql string, bar float64, compared ...string) Question {
		return Question{Name: name, Quiver: sql, DuckDB: sql, Bar: bar, Compared: compared}
	}
	paths := both("top 10 path, status ≥ 500",
		"SELECT path, count(*) AS n FROM logs WHERE status >= 500 GROUP BY path ORDER BY n DESC, path LIMIT 10", 0.10, "path", "n")
	paths.LogsQL = `status:>=500 | stats by (path) count() n | sort by (n desc) limit 10`
	paths.LogQL = `topk(10, sum by (path) (count_over_time(` + allLoki + ` | json status="status", path="path" | status >= 500 [` + span + `])))`
	const expression = `order [0-9]+: card (expired|stolen)`
	matching := both("regex with literals, count", "", 0.05, "n")
	matching.Quiver = "SELECT count(*) AS n FROM logs WHERE regexp_like(message, '" + expression + "')"
	matching.DuckDB = "SELECT count(*) AS n FROM logs WHERE regexp_matches(message, '" + expression + "')"
	matching.LogsQL = `_msg:~"` + expression + `" | stats count() n`
	matching.LogQL = `sum(count_over_time(` + allLoki + ` |~ "` + expression + `" [` + span + `]))`
	distinct := both("count distinct users", "SELECT count(DISTINCT user_id) AS n FROM logs", 0.9, "n")
	distinct.LogsQL = `* | stats count_uniq(user_id) n`
	users := both("top 20 users",
		"SELECT user_id, count(*) AS n FROM logs WHERE user_id IS NOT NULL GROUP BY user_id ORDER BY n DESC, user_id LIMIT 20", 0.9, "user_id", "n")
	users.LogsQL = `user_id:* | stats by (user_id) count() n | sort by (n desc) limit 20`
	users.LogQL = `topk(20, sum by (user_id) (count_over_time(` + allLoki + ` | json user_id="user_id" [` + span + `])))`
	services := both("count by service", "SELECT service, count(*) AS n FROM logs GROUP BY service", 0.2, "service", "n")
	services.LogsQL = `* | stats by (service) count() n`
	services.LogQL = `sum by (service) (count_over_time(` + allLoki + `[` + span + `]))`
	return []Question{paths, matching, distinct, users, services}
}

func lokiDuration(span time.Duration) string { return fmt.Sprintf("%ds", int(span.Seconds())) }
