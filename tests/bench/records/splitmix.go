package records

import "math/bits"

// splitmix is Vigna's splitmix64: the data must be the same on every machine and with every version of Go, so it
// depends on no library's generator.
type splitmix uint64

func (s *splitmix) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is a number from 0 to n-1. The bias of the product is under n/2^64.
func (s *splitmix) below(n int) int {
	high, _ := bits.Mul64(s.next(), uint64(n))
	return int(high)
}

// fraction is a number from 0 to 1, without 1.
func (s *splitmix) fraction() float64 { return float64(s.next()>>11) / (1 << 53) }

// mixed is a number that depends on another and looks random.
func mixed(seed uint64) uint64 {
	own := splitmix(seed)
	return own.next()
}
