package records

import (
	"strconv"
	"time"
)

const hexDigits = "0123456789abcdef"

// appendHex writes the low digits of a number.
func appendHex(out []byte, value uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		out = append(out, hexDigits[value>>shift&15])
	}
	return out
}

// appendDecimal writes value / 10^decimals as loggers do: at most that many decimals, no trailing zeros.
func appendDecimal(out []byte, value, decimals int) []byte {
	scale := 1
	for range decimals {
		scale *= 10
	}
	out = strconv.AppendInt(out, int64(value/scale), 10)
	rest := value % scale
	if rest == 0 {
		return out
	}
	out = append(out, '.')
	for rest > 0 {
		scale /= 10
		out = append(out, byte('0'+rest/scale))
		rest %= scale
	}
	return out
}

// appendPadded writes a number with leading zeros.
func appendPadded(out []byte, value, digits int) []byte {
	at := len(out)
	for range digits {
		out = append(out, '0')
	}
	for i := at + digits - 1; i >= at; i-- {
		out[i] = byte('0' + value%10)
		value /= 10
	}
	return out
}

func appendAddress(out []byte, random *splitmix) []byte {
	bits := random.next()
	out = append(out, "10."...)
	out = strconv.AppendInt(out, int64(bits>>40&3), 10)
	out = append(out, '.')
	out = strconv.AppendInt(out, int64(bits>>16&63), 10)
	out = append(out, '.')
	return strconv.AppendInt(out, int64(bits&255), 10)
}

// appendUUID writes a random (version 4) UUID.
func appendUUID(out []byte, high, low uint64) []byte {
	high = high&^0xf000 | 0x4000
	low = low&^(3<<62) | 1<<63
	out = append(appendHex(out, high>>32, 8), '-')
	out = append(appendHex(out, high>>16, 4), '-')
	out = append(appendHex(out, high, 4), '-')
	out = append(appendHex(out, low>>48, 4), '-')
	return appendHex(out, low, 12)
}

// stamps writes times; the part down to the second is kept, as it seldom changes.
type stamps struct {
	second int64
	text   []byte
}

// appendTime writes RFC 3339 in UTC with microseconds.
func (s *stamps) appendTime(out []byte, timeNs int64) []byte {
	if second := timeNs / 1e9; second != s.second || s.text == nil {
		s.second = second
		s.text = time.Unix(second, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	out = append(out, s.text...)
	return append(appendPadded(out, int(timeNs%1e9/1e3), 6), 'Z')
}

// appendAccessTime writes a time as web servers do.
func appendAccessTime(out []byte, timeNs int64) []byte {
	return time.Unix(0, timeNs).UTC().AppendFormat(out, "02/Jan/2006:15:04:05 -0700")
}
