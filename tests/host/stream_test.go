package host

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"quiver/tests/host/grafana"
	"quiver/tests/host/query"
)

func tailOf(filters ...query.Filter) query.Model {
	model := query.Logs("A", filters...)
	model.Purpose = "tail"
	return model
}

// viewer follows one channel and keeps what came.
type viewer struct {
	t      *testing.T
	stream *grafana.Stream
	packet []byte
	bodies []string
	labels map[string]map[string]string
	times  map[string]time.Time
}

// follow subscribes and runs the channel as Grafana Live does.
func (h *host) follow(path string, model query.Model) *viewer {
	h.t.Helper()
	answer, err := plugin.Subscribe(h.context(), h.instance, path, model.JSON())
	if err != nil {
		h.t.Fatalf("subscribe: %v", err)
	}
	if answer.Status != backend.SubscribeStreamStatusOK {
		h.t.Fatalf("subscribe: status %d", answer.Status)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*requestTimeout)
	h.t.Cleanup(cancel)
	stream, err := plugin.Run(ctx, h.instance, path, model.JSON())
	if err != nil {
		h.t.Fatalf("run: %v", err)
	}
	h.t.Cleanup(stream.Close)
	return &viewer{
		t: h.t, stream: stream,
		labels: map[string]map[string]string{}, times: map[string]time.Time{},
	}
}

// until reads packets until a line with this text came.
func (v *viewer) until(body string) {
	v.t.Helper()
	for !slices.Contains(v.bodies, body) {
		frame, packet, err := v.stream.Next()
		if err != nil {
			v.t.Fatalf("stream ended before %q came; %d lines came: %v", body, len(v.bodies), err)
		}
		v.packet = packet
		v.take(frame)
	}
}

func (v *viewer) take(frame *data.Frame) {
	v.t.Helper()
	if len(frame.Fields) == 0 || frame.Rows() == 0 {
		return
	}
	if frame.Fields[0].Name != "timestamp" {
		v.t.Fatalf("live frame starts with %q; the browser takes it for another format", frame.Fields[0].Name)
	}
	bodies := texts(v.t, field(v.t, frame, "body"))
	for row, body := range bodies {
		v.labels[body] = labelsAt(v.t, frame, row)
		v.times[body] = times(v.t, field(v.t, frame, "timestamp"))[row]
	}
	v.bodies = append(v.bodies, bodies...)
}

func nowLine(service, body string) string {
	return fmt.Sprintf(`{"ts":%q,"service":%q,"level":"error","msg":%q,"device_id":5512}`,
		time.Now().UTC().Format(time.RFC3339Nano), service, body)
}

func TestLineArrivesLive(t *testing.T) {
	h := newHost(t)
	live := h.follow("tail/arrives", tailOf(query.Is("service", "a")))
	at := time.Now().UTC()
	h.jsonLines(
		fmt.Sprintf(`{"ts":%q,"service":"b","msg":"of another service"}`, at.Format(time.RFC3339Nano)),
		fmt.Sprintf(`{"ts":%q,"service":"a","level":"error","msg":"hello","device_id":5512}`, at.Format(time.RFC3339Nano)),
	)
	live.until("hello")
	if !slices.Equal(live.bodies, []string{"hello"}) {
		t.Errorf("came %q, want the line of service a alone", live.bodies)
	}
	if labels := live.labels["hello"]; labels["service"] != "a" || labels["device_id"] != "5512" {
		t.Errorf("labels %v", labels)
	}
	if got := live.times["hello"]; !got.Equal(at) {
		t.Errorf("time %s, want %s to the nanosecond", got.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano))
	}
	// The browser needs the schema in the first packet, with the type that its parser goes by.
	for _, part := range []string{`"schema"`, `"timestamp"`, `"nanos"`} {
		if !bytes.Contains(live.packet, []byte(part)) {
			t.Errorf("packet has no %s: %s", part, live.packet)
		}
	}
}

// Many lines in bursts, faster than the plugin polls: each comes once.
func TestEveryLineOfABurstArrivesOnce(t *testing.T) {
	h := newHost(t)
	live := h.follow("tail/burst", tailOf())
	// What came before the stream's first look is backfill, of which only the newest lines are shown.
	h.jsonLines(nowLine("a", "the start"))
	live.until("the start")
	const bursts, lines = 10, 100
	for burst := range bursts {
		batch := make([]string, lines)
		for i := range batch {
			batch[i] = nowLine("a", fmt.Sprintf("burst %d line %d", burst, i))
		}
		h.jsonLines(batch...)
	}
	h.jsonLines(nowLine("a", "the end"))
	live.until("the end")
	seen := map[string]int{}
	for _, body := range live.bodies {
		seen[body]++
	}
	if want := bursts*lines + 2; len(seen) != want || len(live.bodies) != want {
		t.Errorf("%d lines came, %d different, want %d of both", len(live.bodies), len(seen), want)
	}
}

// A viewer sees the last lines at once, not an empty pane.
func TestBackfill(t *testing.T) {
	h := newHost(t)
	h.jsonLines(nowLine("a", "before the viewer came"))
	live := h.follow("tail/backfill", tailOf())
	live.until("before the viewer came")
	h.jsonLines(nowLine("a", "after"))
	live.until("after")
	if len(live.bodies) != 2 {
		t.Errorf("came %q, want each line once", live.bodies)
	}
}

func TestTwoViewersOfTwoQueries(t *testing.T) {
	h := newHost(t)
	a, b := h.follow("tail/a", tailOf(query.Is("service", "a"))), h.follow("tail/b", tailOf(query.Is("service", "b")))
	h.jsonLines(nowLine("a", "for a"), nowLine("b", "for b"))
	a.until("for a")
	b.until("for b")
	if len(a.bodies) != 1 || len(b.bodies) != 1 {
		t.Errorf("a got %q, b got %q", a.bodies, b.bodies)
	}
	a.stream.Close()
	h.jsonLines(nowLine("b", "for b alone"))
	b.until("for b alone")
}

func TestLiveTailOfSQL(t *testing.T) {
	h := newHost(t)
	model := query.SQL("A", "auto", "SELECT * FROM logs WHERE $__timeFilter(timestamp) AND level = 'error' ORDER BY timestamp DESC LIMIT 100")
	model.Purpose = "tail"
	live := h.follow("tail/sql", model)
	h.jsonLines(`{"service":"a","level":"info","msg":"no error"}`, nowLine("a", "an error"))
	live.until("an error")
	if len(live.bodies) != 1 {
		t.Errorf("came %q, want the error alone", live.bodies)
	}
}

// The store restarts under a viewer: the tail goes on by itself, and neither loses nor repeats a line.
func TestLiveTailOverAStoreRestart(t *testing.T) {
	h := newHost(t)
	live := h.follow("tail/restart", tailOf())
	h.jsonLines(nowLine("a", "before"))
	live.until("before")
	h.restart()
	h.jsonLines(nowLine("a", "after 1"), nowLine("a", "after 2"))
	live.until("after 2")
	h.jsonLines(nowLine("a", "after 3"))
	live.until("after 3")
	if got := strings.Join(live.bodies, ", "); got != "before, after 1, after 2, after 3" {
		t.Errorf("came %q", got)
	}
}

func TestSubscriptionsThatAreRefused(t *testing.T) {
	h := newHost(t)
	cases := []struct {
		path string
		body string
		want backend.SubscribeStreamStatus
	}{
		{"nonsense", string(tailOf().JSON()), backend.SubscribeStreamStatusNotFound},
		{"", string(tailOf().JSON()), backend.SubscribeStreamStatusNotFound},
	}
	for _, c := range cases {
		answer, err := plugin.Subscribe(h.context(), h.instance, c.path, []byte(c.body))
		if err != nil {
			t.Errorf("subscribe %q: %v", c.path, err)
			continue
		}
		if answer.Status != c.want {
			t.Errorf("subscribe %q: status %d, want %d", c.path, answer.Status, c.want)
		}
	}
}

// A query without lines can't be followed. Grafana shows what RunStream says when SubscribeStream let it pass.
func TestTailOfAnAggregateIsRefusedInWords(t *testing.T) {
	h := newHost(t)
	model := query.SQL("A", "auto", "SELECT count(*) FROM logs")
	model.Purpose = "tail"
	answer, err := plugin.Subscribe(h.context(), h.instance, "tail/aggregate", model.JSON())
	if err == nil && answer.Status == backend.SubscribeStreamStatusOK {
		stream, err := plugin.Run(h.context(), h.instance, "tail/aggregate", model.JSON())
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if _, _, err = stream.Next(); err == nil {
			t.Fatal("a count is followed as if it were lines")
		}
		if !strings.Contains(err.Error(), "tail") {
			t.Errorf("error %q does not say what is wrong", err)
		}
	}
}
