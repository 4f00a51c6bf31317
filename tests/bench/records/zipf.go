package records

import "sort"

// zipf draws ranks 0 to n-1 so that rank k comes 1/(k+1) times as often as rank 0.
type zipf struct {
	cumulated []float64 // of the weights, last one 1
	guide     []int32   // for a draw u: the first rank that can be meant by floor(u·len)
}

func newZipf(n int) *zipf {
	z := &zipf{cumulated: make([]float64, n), guide: make([]int32, 4*n)}
	sum := 0.0
	for rank := range n {
		sum += 1 / float64(rank+1)
		z.cumulated[rank] = sum
	}
	for rank := range n {
		z.cumulated[rank] /= sum
	}
	for i := range z.guide {
		low := float64(i) / float64(len(z.guide))
		z.guide[i] = int32(sort.SearchFloat64s(z.cumulated, low))
	}
	return z
}

func (z *zipf) draw(random *splitmix) int {
	u := random.fraction()
	rank := int(z.guide[int(u*float64(len(z.guide)))])
	for rank < len(z.cumulated)-1 && z.cumulated[rank] <= u {
		rank++
	}
	return rank
}
