package question

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// answerOf writes and reads a table of times in a unit, services and columns of fractions.
func answerOf(t *testing.T, unit arrow.TimeUnit, times []arrow.Timestamp, services []string, fractions map[string][]float64) *Answer {
	t.Helper()
	fields := []arrow.Field{
		{Name: "time", Type: &arrow.TimestampType{Unit: unit}},
		{Name: "service", Type: arrow.BinaryTypes.String, Nullable: true},
	}
	names := slices.Sorted(maps.Keys(fractions))
	for _, name := range names {
		fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Float64})
	}
	schema := arrow.NewSchema(fields, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	builder.Field(0).(*array.TimestampBuilder).AppendValues(times, nil)
	for _, service := range services {
		if service == "" {
			builder.Field(1).AppendNull()
		} else {
			builder.Field(1).(*array.StringBuilder).Append(service)
		}
	}
	for i, name := range names {
		builder.Field(2+i).(*array.Float64Builder).AppendValues(fractions[name], nil)
	}
	var stream bytes.Buffer
	writer := ipc.NewWriter(&stream, ipc.WithSchema(schema))
	if err := writer.Write(builder.NewRecordBatch()); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := Read(stream.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestSame(t *testing.T) {
	question := Question{Compared: []string{"time", "service", "p95"}}
	bounds := map[string][]float64{"p95_low": {99, 199}, "p95_high": {101, 201}}
	reference := answerOf(t, arrow.Microsecond, []arrow.Timestamp{1, 2}, []string{"a", ""}, bounds)
	cases := []struct {
		name     string
		times    []arrow.Timestamp
		services []string
		p95      []float64
		same     bool
	}{
		{"another unit and order, within bounds", []arrow.Timestamp{2000, 1000}, []string{"", "a"}, []float64{201, 100}, true},
		{"another time", []arrow.Timestamp{2000, 1001}, []string{"", "a"}, []float64{200, 100}, false},
		{"text for null", []arrow.Timestamp{2000, 1000}, []string{"b", "a"}, []float64{200, 100}, false},
		{"out of bounds", []arrow.Timestamp{2000, 1000}, []string{"", "a"}, []float64{203, 100}, false},
		{"a row less", []arrow.Timestamp{1000}, []string{"a"}, []float64{100}, false},
	}
	for _, c := range cases {
		ours := answerOf(t, arrow.Nanosecond, c.times, c.services, map[string][]float64{"p95": c.p95})
		if err := question.Same(ours, reference); (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
