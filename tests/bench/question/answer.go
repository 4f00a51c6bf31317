package question

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
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

// Same tells how the answer differs from the reference's (that of DuckDB or, where there is one, of Bounds) in the
// compared columns; nil: it does not. The order of rows does not count: equal times may stand in any.
func (q Question) Same(ours, reference *Answer) error {
	var exact, estimated []string
	for _, name := range q.Compared {
		if _, isBounded := reference.columns[name+"_low"]; isBounded {
			estimated = append(estimated, name)
		} else {
			exact = append(exact, name)
		}
	}
	mine, err := ours.sorted(exact, estimated)
	if err != nil {
		return fmt.Errorf("our answer: %w", err)
	}
	lows, highs := suffixed(estimated, "_low"), suffixed(estimated, "_high")
	theirs, err := reference.sorted(exact, append(lows, highs...))
	if err != nil {
		return fmt.Errorf("the reference's answer: %w", err)
	}
	if len(mine) != len(theirs) {
		return fmt.Errorf("%d rows instead of %d", len(mine), len(theirs))
	}
	return differences(mine, theirs, len(exact), len(estimated))
}

func suffixed(names []string, suffix string) []string {
	var suffixed []string
	for _, name := range names {
		suffixed = append(suffixed, name+suffix)
	}
	return suffixed
}

// sorted gives some columns, by the values of the exact ones.
func (a *Answer) sorted(exact, others []string) ([][]cell, error) {
	var places []int
	for _, name := range append(slices.Clone(exact), others...) {
		at, has := a.columns[name]
		if !has {
			return nil, fmt.Errorf("no column %q", name)
		}
		places = append(places, at)
	}
	picked := make([][]cell, 0, len(a.rows))
	for _, row := range a.rows {
		cells := make([]cell, 0, len(places))
		for _, at := range places {
			cells = append(cells, row[at])
		}
		picked = append(picked, cells)
	}
	slices.SortFunc(picked, func(a, b []cell) int {
		return slices.CompareFunc(a[:len(exact)], b[:len(exact)], func(a, b cell) int { return cmp.Compare(a.text, b.text) })
	})
	return picked, nil
}

// differences compares rows of exact and estimated values with rows of exact values, lower and upper bounds.
func differences(mine, theirs [][]cell, exact, estimated int) error {
	var told []string
	count := 0
	for i := range mine {
		isSame := slices.Equal(mine[i][:exact], theirs[i][:exact])
		for at := exact; at < exact+estimated; at++ {
			isSame = isSame && mine[i][at].within(theirs[i][at], theirs[i][at+estimated])
		}
		if isSame {
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

func (c cell) within(low, high cell) bool {
	if c.isExact || low.isExact || high.isExact {
		return c == low && c == high // no values: null
	}
	return low.fraction <= c.fraction && c.fraction <= high.fraction
}

// String shows a cell in a difference.
func (c cell) String() string {
	if c.isExact {
		return c.text
	}
	return fmt.Sprintf("%g", c.fraction)
}
