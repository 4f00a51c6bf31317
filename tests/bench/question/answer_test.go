package question

import (
	"bytes"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// answerOf writes and reads a table of times in a unit, services and a number.
func answerOf(t *testing.T, unit arrow.TimeUnit, times []arrow.Timestamp, services []string, numbers []float64) *Answer {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: &arrow.TimestampType{Unit: unit}},
		{Name: "service", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "p95", Type: arrow.PrimitiveTypes.Float64},
	}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	builder.Field(0).(*array.TimestampBuilder).AppendValues(times, nil)
	for _, service := range services {
		if service == "" {
			builder.Field(1).AppendNull()
		} else {
			builder.Field(1).(*array.StringBuilder).Append(service)
		}
	}
	builder.Field(2).(*array.Float64Builder).AppendValues(numbers, nil)
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
	question := Question{Compared: []string{"time", "service", "p95"}, Tolerance: 0.01}
	reference := answerOf(t, arrow.Microsecond, []arrow.Timestamp{1, 2}, []string{"a", ""}, []float64{100, 200})
	cases := []struct {
		name string
		ours *Answer
		same bool
	}{
		{"another unit, order and a small difference", answerOf(t, arrow.Nanosecond, []arrow.Timestamp{2000, 1000}, []string{"", "a"}, []float64{201, 100}), true},
		{"another time", answerOf(t, arrow.Nanosecond, []arrow.Timestamp{2000, 1001}, []string{"", "a"}, []float64{200, 100}), false},
		{"text for null", answerOf(t, arrow.Nanosecond, []arrow.Timestamp{2000, 1000}, []string{"b", "a"}, []float64{200, 100}), false},
		{"a large difference", answerOf(t, arrow.Nanosecond, []arrow.Timestamp{2000, 1000}, []string{"", "a"}, []float64{203, 100}), false},
		{"a row less", answerOf(t, arrow.Nanosecond, []arrow.Timestamp{1000}, []string{"a"}, []float64{100}), false},
	}
	for _, c := range cases {
		if err := question.Same(c.ours, reference); (err == nil) != c.same {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
