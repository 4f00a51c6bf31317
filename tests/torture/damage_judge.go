package torture

// What the store shall do with damage (the issue's words): "damage is detected by checksum, quarantined, reported in
// /metrics and as a notice on queries, never a wrong answer or a crash loop; a damaged or missing index is rebuilt from
// its segment". A damaged catalog may refuse the start with a message that says what to do.

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// noticeHeader and noticeKey are where an answer tells that it is not whole: the one place to change.
const (
	noticeHeader = "X-Quiver-Notice"
	noticeKey    = "notice"
)

// damageMetric counts segments in quarantine.
const damageMetric = "quiver_storage_quarantined_segments"

// reportMax is how long the metric may take: what a query comes upon reaches the store's writer beside its answer.
const reportMax = 10 * time.Second

func judge(report *Report, found finding) {
	name := found.damage.name
	switch found.damage.part {
	case index:
		if found.outcome != right {
			report.fail("%s: the index is not rebuilt; there is %s: %s", name, found.outcome, found.message)
		}
	case catalog:
		if found.outcome != refused && found.outcome != right {
			report.fail("%s: there is %s: %s", name, found.outcome, found.message)
		}
	case segment:
		if found.outcome != noticed && found.outcome != right {
			report.fail("%s: there is %s: %s", name, found.outcome, found.message)
		}
		if found.outcome == noticed && !found.reported {
			report.fail("%s: %s is not in /metrics, or 0", name, damageMetric)
		}
	}
}

// noticeOf is what an answer says of records that it could not read; "" when it says nothing.
func noticeOf(answer Answer) string {
	if notice := answer.Header.Get(noticeHeader); notice != "" {
		return notice
	}
	last := lastLine(answer.Body)
	var row map[string]json.RawMessage
	if json.Unmarshal([]byte(last), &row) == nil && row[noticeKey] != nil {
		return strings.TrimSpace(last)
	}
	return ""
}

func reportsDamage(ctx context.Context, store *Store) bool {
	value, err := store.Metric(ctx, damageMetric)
	return err == nil && value > 0
}
