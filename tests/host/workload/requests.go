package workload

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// shop draws what happens. The same seed and second give the same events.
type shop struct{ seed uint64 }

// incident is when the payment provider stumbles: minutes of every half hour, so that history and live view both have
// one, and the error-share rule has something to fire on.
func incident(at time.Time) bool {
	minute := at.Minute() % 30
	return minute >= 17 && minute < 20
}

// second draws the events of one second, oldest first within each request.
func (s shop) second(at time.Time) []event {
	at = at.Truncate(time.Second)
	random := rand.New(rand.NewPCG(s.seed, uint64(at.Unix())))
	// More customers come in the middle of each ten minutes.
	wave := math.Sin(float64(at.Unix()%600) / 600 * 2 * math.Pi)
	var events []event
	for range 2 + int(1.5+1.5*wave) {
		start := at.Add(time.Duration(random.Int64N(int64(time.Second))))
		switch n := random.IntN(10); {
		case n < 5:
			events = append(events, payment(random, start)...)
		case n < 8:
			events = append(events, browse(random, start)...)
		default:
			events = append(events, telemetry(random, start)...)
		}
	}
	if at.Unix()%5 == 0 {
		events = append(events, housekeeping(random, at)...)
	}
	return append(events, cluster(at)...)
}

func newTrace(random *rand.Rand) trace.TraceID {
	var id trace.TraceID
	binary.BigEndian.PutUint64(id[:8], random.Uint64())
	binary.BigEndian.PutUint64(id[8:], random.Uint64()|1)
	return id
}

func newSpan(random *rand.Rand) trace.SpanID {
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], random.Uint64()|1)
	return id
}

// latency draws from a long-tailed distribution around a median.
func latency(random *rand.Rand, median time.Duration) time.Duration {
	return time.Duration(float64(median) * math.Exp(random.NormFloat64()*0.5))
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Millisecond)*10) / 10 }

func access(at time.Time, random *rand.Rand, method, path string, status int) event {
	address := fmt.Sprintf("10.0.%d.%d", random.IntN(4), 1+random.IntN(250))
	return event{service: "nginx", at: at, message: fmt.Sprintf(`%s - - [%s] "%s %s HTTP/1.1" %d %d "-" "Mozilla/5.0"`,
		address, at.UTC().Format("02/Jan/2006:15:04:05 -0700"), method, path, status, 200+random.IntN(4000))}
}

// payment passes through nginx, bff, payments-api, ledger and worker.
func payment(random *rand.Rand, start time.Time) []event {
	id, root, inner := newTrace(random), newSpan(random), newSpan(random)
	user, amount := 1000+random.IntN(400), float64(500+random.IntN(20000))/100
	median := 70 * time.Millisecond
	declined, broken := random.IntN(100) < 3, random.IntN(1000) < 4
	if incident(start) {
		median, broken = 700*time.Millisecond, random.IntN(100) < 35
	}
	took := latency(random, median)
	paid := start.Add(10*time.Millisecond + took)
	done := paid.Add(8 * time.Millisecond)

	pay := event{service: "payments-api", at: paid, level: "info", message: "payment captured", traceID: id, spanID: inner,
		parent: root, duration: took, fields: []pair{{"user_id", user}, {"amount", amount}, {"status", 200}, {"duration_ms", ms(took)}}}
	status := 200
	switch {
	case broken:
		status = 502
		pay.level, pay.failed = "error", true
		pay.message = fmt.Sprintf("payment provider did not answer within %d ms", 500+100*random.IntN(10))
		pay.fields[2].value = 502
	case declined:
		status = 402
		pay.level, pay.failed = "error", true
		pay.message = "card_declined: insufficient funds"
		pay.fields[2].value = 402
	}
	events := []event{
		{service: "bff", at: start.Add(2 * time.Millisecond), level: "debug", message: "session restored", traceID: id, spanID: root,
			fields: []pair{{"user_id", user}}},
		pay,
	}
	if status == 200 {
		entry := latency(random, 12*time.Millisecond)
		written := paid.Add(entry)
		events = append(events,
			event{service: "ledger", at: written, level: "info", message: "entry written", traceID: id, spanID: newSpan(random),
				parent: inner, duration: entry, fields: []pair{{"entry_id", random.IntN(1 << 30)}, {"duration_ms", ms(entry)}}},
			receipt(random, written, id, inner))
		done = written.Add(5 * time.Millisecond)
	}
	level, text := "info", "request completed"
	if status >= 500 {
		level, text = "error", "upstream payments-api answered 502"
	}
	total := done.Sub(start)
	events = append(events,
		event{service: "bff", at: done, level: level, message: text, traceID: id, spanID: root, duration: total, failed: status >= 500,
			fields: []pair{{"method", "POST"}, {"path", "/api/v1/payments"}, {"status", status}, {"duration_ms", ms(total)}}},
		access(done, random, "POST", "/api/v1/payments", status))
	return events
}

// receipt is mailed later, by the worker; now and then the mail server is busy.
func receipt(random *rand.Rand, after time.Time, id trace.TraceID, parent trace.SpanID) event {
	took := latency(random, 180*time.Millisecond)
	mail := event{service: "worker", at: after.Add(took), level: "info", message: "receipt mailed", traceID: id, spanID: newSpan(random),
		parent: parent, duration: took, fields: []pair{{"job", "receipt"}, {"attempt", 1}, {"duration_ms", ms(took)}}}
	if random.IntN(100) < 4 {
		mail.level, mail.message = "warn", "mail server is busy, will try again"
	}
	return mail
}

// browse passes through nginx, bff and inventory.
func browse(random *rand.Rand, start time.Time) []event {
	id, root := newTrace(random), newSpan(random)
	path := fmt.Sprintf("/api/v1/products/%d", 1+random.IntN(60))
	took := latency(random, 25*time.Millisecond)
	found := start.Add(took)
	total := took + 6*time.Millisecond
	stock := event{service: "inventory", at: found, level: "info", message: "request completed", traceID: id, spanID: newSpan(random),
		parent: root, duration: took, fields: []pair{{"reqId", fmt.Sprintf("req-%x", random.Uint32())}, {"status", 200}, {"duration_ms", ms(took)}}}
	status := 200
	if random.IntN(100) < 5 {
		status = 404
		stock.level, stock.message, stock.fields[1].value = "warn", "product is not in the catalogue", 404
	}
	return []event{
		stock,
		{service: "bff", at: start.Add(total), level: "info", message: "request completed", traceID: id, spanID: root, duration: total,
			fields: []pair{{"method", "GET"}, {"path", path}, {"status", status}, {"duration_ms", ms(total)}}},
		access(start.Add(total), random, "GET", path, status),
	}
}

// telemetry comes from devices, through one service that parses it.
func telemetry(random *rand.Rand, start time.Time) []event {
	id := newTrace(random)
	took := latency(random, 9*time.Millisecond)
	packet := event{service: "telemetry-processing", at: start.Add(took), level: "info", message: "Request completed", traceID: id,
		spanID: newSpan(random), duration: took, fields: []pair{
			{"device_id", 5500 + random.IntN(60)}, {"method", "PUT"}, {"path", "/api/v1/telemetry"}, {"status_code", 200}, {"duration_ms", ms(took)}}}
	switch n := random.IntN(100); {
	case n < 3:
		packet.level, packet.message, packet.failed = "error", "failed to parse packet", true
		packet.fields[3].value = 400
	case n < 8:
		packet.level, packet.message = "warn", "WebSocket disconnected"
	}
	return []event{packet}
}

// housekeeping has no trace: nobody asked for it.
func housekeeping(random *rand.Rand, at time.Time) []event {
	took := latency(random, 300*time.Millisecond)
	tick := event{service: "scheduler", at: at.Add(took), level: "info", message: "job finished",
		fields: []pair{{"job", "expire-sessions"}, {"rows", random.IntN(500)}, {"duration_ms", ms(took)}}}
	if took > 600*time.Millisecond {
		tick.level, tick.message = "warn", "slow query"
	}
	return []event{tick}
}

// cluster is what the scheduler tells of the others' pods: a release goes out a minute before the incident, and is taken
// back when it ends; between the two a pod runs out of memory.
func cluster(at time.Time) []event {
	var level, message string
	var fields []pair
	switch at.Minute()%30*60 + at.Second() {
	case releasedAt:
		level, message = "info", "deployed payments-api "+newVersion
	case 18*60 + 30:
		level, message = "error", "container ledger of pod ledger-1 was OOMKilled"
		fields = []pair{{"exit_code", 137}}
	case 18*60 + 35:
		level, message = "warn", "restarted container ledger of pod ledger-1"
		fields = []pair{{"restarts", 1}}
	case takenBackAt:
		level, message = "info", "rollback: deployed payments-api "+oldVersion
	default:
		return nil
	}
	return []event{{service: "scheduler", at: at, level: level, message: message, fields: fields}}
}

// The seconds of every half hour at which the cluster has another version of payments-api.
const (
	releasedAt, takenBackAt = 16 * 60, 20 * 60
	oldVersion, newVersion  = "1.8.3", "1.8.4"
)

// version is the release of a service that runs then.
func version(service string, at time.Time) string {
	second := at.Minute()%30*60 + at.Second()
	if service == "payments-api" && second >= releasedAt && second < takenBackAt {
		return newVersion
	}
	return oldVersion
}
