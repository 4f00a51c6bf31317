// Package records makes the bench's log records: a shop of 12 microservices that write JSON, and 16 daemons that write
// plain text, in the order of time.
//
// It knows nothing of stores. Invariant: what is made depends on the Options only, byte for byte, on every machine.
package records

import "time"

const (
	// RareToken stands in RareCount records; AbsentToken in none.
	RareToken   = "zxq7rareneedle42"
	RareCount   = 6
	AbsentToken = "qqabsentneedle77"

	userCount = 58_000
	// requestCount requests run at once: at 24 lines per second, lines of a trace lie within some seconds.
	requestCount = 48
	// microservicePercent of the records come from microservices.
	microservicePercent = 70
)

// Options say which records are made.
type Options struct {
	Seed    uint64
	Records int64
	// End is the time after the last record; Span the time from the first one to it.
	End  time.Time
	Span time.Duration
}

// Record is a log record. Its slices are overwritten by the next one.
type Record struct {
	TimeNs   int64
	Service  string
	Instance string
	// Level is empty for daemons that write none.
	Level string
	// TraceID is empty for daemons.
	TraceID []byte
	// IsRare tells that the message has the RareToken.
	IsRare bool
	// Line is the record as JSON, without a line end.
	Line []byte
	// Plain is the line as the program itself writes it: JSON by microservices, text by daemons.
	Plain []byte
}

// Generator makes records.
type Generator struct {
	options       Options
	random        splitmix
	users         *zipf
	services      []service
	daemons       []daemon
	hosts         [hostCount]string
	requests      [requestCount]request
	systemRequest request
	stamps        stamps
	made          int64 // records, without the one that is being made
	rareMade      int64
	timeNs        int64 // of the record that is being made
	isRare        bool
	message       []byte // of the record that is being made
}

// New makes a generator that stands before the first record.
func New(options Options) *Generator {
	return &Generator{
		options: options, random: splitmix(options.Seed), users: newZipf(userCount),
		services: makeServices(), daemons: makeDaemons(), hosts: makeHosts(),
	}
}

// Next makes the next record; false: there are no more.
func (g *Generator) Next(record *Record) bool {
	if g.made == g.options.Records {
		return false
	}
	// Times rise by a microsecond at least, so that the newest 1000 are the same ones for every store.
	slotUs := g.options.Span.Microseconds() / g.options.Records
	slot := g.options.End.UnixMicro() - (g.options.Records-g.made)*slotUs
	g.timeNs = 1_000 * (slot + int64(g.random.below(int(slotUs))))
	g.isRare = g.rareMade < RareCount && g.made >= g.options.Records*(2*g.rareMade+1)/(2*RareCount)
	record.TimeNs, record.IsRare = g.timeNs, g.isRare
	if g.random.below(100) < microservicePercent {
		g.microservice(record)
	} else {
		g.system(record)
	}
	if g.isRare {
		g.rareMade++
	}
	g.made++
	return true
}

func (g *Generator) markRare() {
	if g.isRare {
		g.message = append(append(g.message, " ref "...), RareToken...)
	}
}

// openLine writes what every JSON line starts with.
func (g *Generator) openLine(record *Record) []byte {
	line := g.stamps.appendTime(append(record.Line[:0], `{"time":"`...), g.timeNs)
	if record.Level != "" {
		line = append(append(line, `","level":"`...), record.Level...)
	}
	line = append(append(line, `","service":"`...), record.Service...)
	line = append(append(line, `","instance":"`...), record.Instance...)
	return append(line, '"')
}

// appendText writes the inside of a JSON string; our messages have quotes, but no control characters.
func appendText(out, text []byte) []byte {
	for _, letter := range text {
		if letter == '"' || letter == '\\' {
			out = append(out, '\\')
		}
		out = append(out, letter)
	}
	return out
}
