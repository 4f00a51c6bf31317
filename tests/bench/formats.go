package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// formatBytes is how much of each format is decoded; enough that learning its form does not count.
const formatBytes = 16 << 20

// format is a kind of lines, by what makes the i-th one.
type format struct {
	name string
	line func(i int, at time.Time) string
}

// decoded is what decoding a format's lines costs.
type decoded struct {
	name       string
	cpuPerGB   float64
	bytesALine int
}

func hexID(i int) string {
	return fmt.Sprintf("%016x%016x", uint64(i)*0x9E3779B97F4A7C15, uint64(i)*0xC2B2AE3D27D4EB4F)
}

// formats are lines as services, runtimes and servers write them; their values change as theirs do.
var formats = []format{
	{"JSON", func(i int, at time.Time) string {
		return fmt.Sprintf(`{"ts":"%s","level":"info","service":"telemetry-processing","trace_id":"%s","device_id":%d,"msg":"failed to parse packet %d","duration_ms":%d.%d}`,
			at.Format("2006-01-02T15:04:05.000Z"), hexID(i), i%9999, i%77, i%500, 1+i%9)
	}},
	{"pino", func(i int, at time.Time) string {
		return fmt.Sprintf(`{"level":30,"time":%d,"pid":7,"hostname":"web-1","reqId":"%s","msg":"request completed","responseTime":%d.%d}`,
			at.UnixMilli(), hexID(i), i%100, 1+i%9)
	}},
	{"key='value'", func(i int, at time.Time) string {
		return fmt.Sprintf("timestamp='%s' level='info' logger='service' event='Request completed' method='GET' path='/api/v1/%d' status_code=200 trace_id='%s'",
			at.Format(time.RFC3339), i%50, hexID(i))
	}},
	{"logfmt", func(i int, at time.Time) string {
		return fmt.Sprintf(`level=warn ts=%s caller=main.go:12 msg="slow query %d" duration=1.%ds rows=%d`, at.Format(time.RFC3339), i%100, i%10, i%1000)
	}},
	{"Docker, JSON inside", func(i int, at time.Time) string {
		return fmt.Sprintf(`{"log":"{\"level\":\"info\",\"msg\":\"request completed\",\"trace_id\":\"%s\",\"n\":%d}\n","stream":"stdout","time":"%s"}`,
			hexID(i), i%1000, at.Format(time.RFC3339Nano))
	}},
	{"Docker, text inside", func(i int, at time.Time) string {
		return fmt.Sprintf(`{"log":"request %s completed in %d ms for user %d\n","stream":"stdout","time":"%s"}`,
			hexID(i), i%1000, i%77, at.Format(time.RFC3339Nano))
	}},
	{"CRI, JSON inside", func(i int, at time.Time) string {
		return fmt.Sprintf(`%s stdout F {"level":"info","msg":"request completed","trace_id":"%s","n":%d}`, at.Format(time.RFC3339Nano), hexID(i), i%1000)
	}},
	{"access log", func(i int, at time.Time) string {
		return fmt.Sprintf(`203.0.113.%d - - [%s] "GET /api/v1/items/%d?q=x HTTP/1.1" 200 %d "https://x.example/" "Mozilla/5.0 (X11; Linux x86_64)"`,
			i%250, at.Format("02/Jan/2006:15:04:05 -0700"), i%5000, 100+i%9000)
	}},
	{"log4j", func(i int, at time.Time) string {
		return fmt.Sprintf("%s INFO  [http-%d] com.example.shop.Cart - added item %d for user %d", at.Format("2006-01-02 15:04:05,000"), i%16, i%5000, i%999)
	}},
	{"syslog", func(i int, at time.Time) string {
		return fmt.Sprintf("<134>1 %s web-1 app %d - - request %d done in %d ms", at.Format("2006-01-02T15:04:05.000Z"), 1000+i%50, i%5000, i%999)
	}},
	{"klog", func(i int, at time.Time) string {
		return fmt.Sprintf("I%s       1 reflector.go:%d] watch of pod-%d ended after %d items", at.Format("0102 15:04:05.000000"), i%900, i%5000, i%999)
	}},
	{"prose", func(i int, _ time.Time) string {
		return fmt.Sprintf("request %s of user %d took %d ms and then some more words follow here", hexID(i), i%999, i%5000)
	}},
}

// body makes at least `bytes` of a format's lines, and tells how many.
func (f format) body(bytes int) (text string, lines int) {
	var body strings.Builder
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for ; body.Len() < bytes; lines++ {
		body.WriteString(f.line(lines, start.Add(time.Duration(lines)*1234567*time.Nanosecond)))
		body.WriteByte('\n')
	}
	return body.String(), lines
}

// measureFormats asks `quiver parse --measure` what decoding each format costs.
func measureFormats(ctx context.Context, s settings) ([]decoded, error) {
	var found []decoded
	path := filepath.Join(s.work, "format.log")
	defer os.Remove(path)
	for _, format := range formats {
		body, lines := format.body(formatBytes)
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			return nil, err
		}
		told, err := exec.CommandContext(ctx, s.binary, "parse", "--measure", path).Output()
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", format.name, err)
		}
		number, _, _ := strings.Cut(string(told), " ")
		cost, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, fmt.Errorf("parse %s: answered %q", format.name, told)
		}
		found = append(found, decoded{format.name, cost, len(body) / lines})
	}
	return found, nil
}
