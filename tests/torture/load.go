package torture

// Load: writers that send numbered lines by Loki push and as JSON lines, and remember what was acknowledged; and the
// check of what a store holds against what they remember.
// Invariant: a number is sent once, and a line follows from its number alone.

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	writers          = 4
	linesPerBatchMax = 8
	// numbersPerWriter is more than one writer sends in one round.
	numbersPerWriter = 1_000_000
	lostShownMax     = 10
	// padMin marks numbers whose lines carry a long text that does not compress.
	padMin   = 1 << 40
	padBytes = 4096
)

// lineOf is the line of a number.
func lineOf(n int64) string {
	level := [...]string{"info", "error", "debug"}[n%3]
	if n < padMin {
		return fmt.Sprintf(`{"level":"%s","msg":"line %d","n":%d}`, level, n, n)
	}
	random, pad := rand.New(rand.NewPCG(uint64(n), 0)), make([]byte, padBytes)
	for at := range pad {
		pad[at] = 'A' + byte(random.IntN(26)) + byte(random.IntN(2))*32
	}
	return fmt.Sprintf(`{"level":"%s","msg":"line %d","n":%d,"pad":"%s"}`, level, n, n, pad)
}

// Written is what one writer did in one round.
type Written struct {
	First, End   int64 // numbers sent: from First, below End
	Acknowledged [][2]int64
	Refused      []Refusal
	// Last is why it stopped: the connection broke, or it was told to.
	Last error
}

// Refusal is an answer that is not 2xx.
type Refusal struct {
	At time.Time
	Answer
}

// Load is a round of writers under way.
type Load struct {
	stop    context.CancelFunc
	group   sync.WaitGroup
	written [writers]Written
}

// load starts writers with the numbers of a round. They end when the store is gone or Wait is called; a refused batch
// is not sent again, the next one is, after a moment.
func (s *Store) load(ctx context.Context, round int64, base int64, random *rand.Rand) *Load {
	ctx, stop := context.WithCancel(ctx)
	load := &Load{stop: stop}
	for writer := range writers {
		first := base + (round*writers+int64(writer))*numbersPerWriter
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		load.group.Go(func() { load.written[writer] = s.write(ctx, first, own) })
	}
	return load
}

// Wait stops the writers and says what they did.
func (l *Load) Wait() []Written {
	l.stop()
	l.group.Wait()
	return l.written[:]
}

func (s *Store) write(ctx context.Context, first int64, random *rand.Rand) Written {
	written := Written{First: first, End: first}
	for ctx.Err() == nil {
		from := written.End
		written.End += 1 + random.Int64N(linesPerBatchMax)
		// A request under way is not cut off: its answer says whether it counts.
		answer, err := s.send(context.WithoutCancel(ctx), from, written.End, random.IntN(2) == 0)
		switch {
		case err != nil:
			written.Last = err
			return written
		case answer.Good():
			written.Acknowledged = append(written.Acknowledged, [2]int64{from, written.End})
		default:
			written.Refused = append(written.Refused, Refusal{time.Now(), answer})
			pause(ctx, 20*time.Millisecond)
		}
	}
	return written
}

// send writes a batch; an error means that no whole answer came.
func (s *Store) send(ctx context.Context, from, end int64, byLoki bool) (Answer, error) {
	lines := make([]string, 0, end-from)
	for n := from; n < end; n++ {
		lines = append(lines, lineOf(n))
	}
	if byLoki {
		return s.Do(ctx, "POST", "/loki/api/v1/push", "application/json", lokiPush(lines))
	}
	answer, err := s.Do(ctx, "POST", "/api/v1/ingest", "application/x-ndjson", []byte(strings.Join(lines, "\n")))
	var told struct{ Accepted int }
	if err == nil && answer.Good() && (json.Unmarshal([]byte(answer.Body), &told) != nil || told.Accepted != len(lines)) {
		return Answer{Status: http.StatusTeapot, Body: "not all of a good batch was accepted: " + answer.Body}, nil
	}
	return answer, err
}

func lokiPush(lines []string) []byte {
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values [][2]string       `json:"values"`
	}
	pushed := stream{Stream: map[string]string{"app": "torture"}}
	now := time.Now().UnixNano()
	for at, line := range lines {
		pushed.Values = append(pushed.Values, [2]string{strconv.FormatInt(now+int64(at), 10), line})
	}
	body, _ := json.Marshal(map[string]any{"streams": []stream{pushed}}) // texts always serialise
	return body
}

// Counts compare what was acknowledged with what is found.
type Counts struct {
	Acknowledged, Found, Lost, Doubled int64
	// Unsent lines were never sent, Changed ones are not what was sent.
	Unsent, Changed int64
	// Unread lines were acknowledged, and the query for them failed.
	Unread int64
}

func (c Counts) String() string {
	text := fmt.Sprintf("%d acknowledged, %d found, %d lost, %d doubled, %d never sent, %d changed",
		c.Acknowledged, c.Found, c.Lost, c.Doubled, c.Unsent, c.Changed)
	if c.Unread > 0 {
		text += fmt.Sprintf(", %d behind a query that failed", c.Unread)
	}
	return text
}

// Broken says whether the promise is.
func (c Counts) Broken() bool { return c.Lost+c.Doubled+c.Unsent+c.Changed > 0 }

func (c *Counts) add(other Counts) {
	c.Acknowledged += other.Acknowledged
	c.Found += other.Found
	c.Lost += other.Lost
	c.Doubled += other.Doubled
	c.Unsent += other.Unsent
	c.Changed += other.Changed
	c.Unread += other.Unread
}

// Ledger is everything that was sent to one data directory.
type Ledger struct {
	written      []Written
	acknowledged int64
}

func (l *Ledger) add(written []Written) {
	for _, one := range written {
		l.written = append(l.written, one)
		l.acknowledged += one.acknowledged()
	}
}

func (w Written) acknowledged() int64 {
	var sum int64
	for _, span := range w.Acknowledged {
		sum += span[1] - span[0]
	}
	return sum
}

// check compares a store with the ledger, and names some of what is lost.
func (l *Ledger) check(ctx context.Context, store *Store) (Counts, string, error) {
	rows, _, err := store.Rows(ctx)
	if err != nil && strings.Contains(err.Error(), "no field named 'n'") {
		err = nil // a store without lines
	}
	if err != nil {
		return Counts{Acknowledged: l.acknowledged, Unread: l.acknowledged}, "", err
	}
	counts, shown := l.compare(rows)
	return counts, shown, nil
}

func (l *Ledger) compare(rows []Row) (Counts, string) {
	counts := Counts{Found: int64(len(rows)), Acknowledged: l.acknowledged}
	times := make(map[int64]int, len(rows))
	for _, row := range rows {
		switch {
		case row.N == nil || !l.wasSent(*row.N):
			counts.Unsent++
			continue
		case row.Line != lineOf(*row.N):
			counts.Changed++
		}
		if times[*row.N]++; times[*row.N] == 2 {
			counts.Doubled++
		}
	}
	var lost []int64
	for _, one := range l.written {
		for _, span := range one.Acknowledged {
			for n := span[0]; n < span[1]; n++ {
				if times[n] == 0 {
					lost = append(lost, n)
				}
			}
		}
	}
	counts.Lost = int64(len(lost))
	shown := ""
	if len(lost) > 0 {
		shown = fmt.Sprintf(" (lost: %v … %d)", lost[:min(len(lost), lostShownMax)], lost[len(lost)-1])
	}
	return counts, shown
}

func (l *Ledger) wasSent(n int64) bool {
	return slices.ContainsFunc(l.written, func(one Written) bool { return one.First <= n && n < one.End })
}
