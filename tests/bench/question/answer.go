package question

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
)

// Answer is a table; what stores write in other types reads alike.
type Answer struct {
	columns map[string]int
	rows    [][]cell
}

// cell is a value: exact ones are text, numbers with a fraction (and these alone) a number.
type cell struct {
	text     string
	fraction float64
	isExact  bool
}

// Rows is their number.
func (a *Answer) Rows() int { return len(a.rows) }

// Texts are a column's values.
func (a *Answer) Texts(column string) []string {
	texts := make([]string, 0, len(a.rows))
	for _, row := range a.rows {
		texts = append(texts, row[a.columns[column]].text)
	}
	return texts
}

// Read reads an Arrow IPC stream.
func Read(stream []byte) (*Answer, error) {
	reader, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		return nil, err
	}
	defer reader.Release()
	answer := &Answer{columns: map[string]int{}}
	for i, field := range reader.Schema().Fields() {
		answer.columns[field.Name] = i
	}
	for reader.Next() {
		batch := reader.RecordBatch()
		first := len(answer.rows)
		for range batch.NumRows() {
			answer.rows = append(answer.rows, make([]cell, batch.NumCols()))
		}
		for at, column := range batch.Columns() {
			for row := range column.Len() {
				answer.rows[first+row][at] = cellOf(column, row)
			}
		}
	}
	if err := reader.Err(); err != nil && err != io.EOF {
		return nil, err
	}
	return answer, nil
}

func cellOf(column arrow.Array, row int) cell {
	if column.IsNull(row) {
		return cell{text: "∅", isExact: true}
	}
	switch values := column.(type) {
	case *array.Timestamp:
		unit := values.DataType().(*arrow.TimestampType).Unit
		return cell{text: fmt.Sprint(values.Value(row).ToTime(unit).UnixNano()), isExact: true}
	case *array.Float64:
		return cell{fraction: values.Value(row)}
	default:
		return cell{text: column.ValueStr(row), isExact: true}
	}
}

// differencesMax are told; the others are counted.
const differencesMax = 3

// Same tells how the answer differs from the reference's in the compared columns; nil: it does not. The order of rows
// does not count: equal times may stand in any.
func (q Question) Same(ours, reference *Answer) error {
	mine, err := q.picked(ours)
	if err != nil {
		return fmt.Errorf("our answer: %w", err)
	}
	theirs, err := q.picked(reference)
	if err != nil {
		return fmt.Errorf("the reference's answer: %w", err)
	}
	if len(mine) != len(theirs) {
		return fmt.Errorf("%d rows instead of %d", len(mine), len(theirs))
	}
	var told []string
	count := 0
	for i := range mine {
		if q.sameRow(mine[i], theirs[i]) {
			continue
		}
		if count++; count <= differencesMax {
			told = append(told, fmt.Sprintf("%v instead of %v", mine[i], theirs[i]))
		}
	}
	if count == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d rows differ: %s", count, len(mine), strings.Join(told, "; "))
}

// picked gives the compared columns, sorted by all exact values.
func (q Question) picked(answer *Answer) ([][]cell, error) {
	picked := make([][]cell, 0, len(answer.rows))
	for _, row := range answer.rows {
		var cells []cell
		for _, name := range q.Compared {
			at, has := answer.columns[name]
			if !has {
				return nil, fmt.Errorf("no column %q", name)
			}
			cells = append(cells, row[at])
		}
		picked = append(picked, cells)
	}
	slices.SortFunc(picked, func(a, b []cell) int {
		return slices.CompareFunc(a, b, func(a, b cell) int { return cmp.Compare(a.text, b.text) })
	})
	return picked, nil
}

func (q Question) sameRow(a, b []cell) bool {
	return slices.EqualFunc(a, b, func(a, b cell) bool {
		if a.isExact || b.isExact {
			return a == b
		}
		return math.Abs(a.fraction-b.fraction) <= q.Tolerance*math.Abs(b.fraction)
	})
}

// String shows a cell in a difference.
func (c cell) String() string {
	if c.isExact {
		return c.text
	}
	return fmt.Sprintf("%g", c.fraction)
}
