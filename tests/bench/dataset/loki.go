package dataset

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/klauspost/compress/snappy"

	"quiver/tests/bench/records"
)

// agentCount agents send, each the lines of its own instances, as Promtail does on every host.
const agentCount = 4

func agentOf(instance string) int {
	hash := fnv.New32a()
	hash.Write([]byte(instance))
	return int(hash.Sum32() % agentCount)
}

// Push gathers records as one logproto.PushRequest: streams by service, instance and level, lines as the programs write
// them. The message is small, and written here by hand.
type Push struct {
	streams map[streamKey]*stream
	order   []*stream
	held    Span
}

type streamKey struct{ service, instance, level string }

// stream is an encoded logproto.StreamAdapter without its length: labels = 1, entries = 2.
type stream struct{ encoded []byte }

// Tags of protobuf fields: number << 3 | 2 (bytes) or 0 (varint).
const (
	tagStreams = 1<<3 | 2
	tagLabels  = 1<<3 | 2
	tagEntries = 2<<3 | 2
	tagTime    = 1<<3 | 2
	tagLine    = 2<<3 | 2
	tagSeconds = 1 << 3
	tagNanos   = 2 << 3
)

// Add adds a record.
func (p *Push) Add(record *records.Record) {
	if p.streams == nil {
		p.streams = map[streamKey]*stream{}
	}
	key := streamKey{record.Service, record.Instance, record.Level}
	into := p.streams[key]
	if into == nil {
		into = &stream{encoded: appendBytes(nil, tagLabels, []byte(key.labels()))}
		p.streams[key] = into
		p.order = append(p.order, into)
	}
	var timeBytes, entry [32]byte
	stamp := binary.AppendUvarint(append(timeBytes[:0], tagSeconds), uint64(record.TimeNs/1e9))
	stamp = binary.AppendUvarint(append(stamp, tagNanos), uint64(record.TimeNs%1e9))
	head := appendBytes(entry[:0], tagTime, stamp)
	head = binary.AppendUvarint(append(head, tagLine), uint64(len(record.Plain)))
	into.encoded = binary.AppendUvarint(append(into.encoded, tagEntries), uint64(len(head)+len(record.Plain)))
	into.encoded = append(append(into.encoded, head...), record.Plain...)
	p.held.Add(len(record.Plain))
}

// labels is the stream's selector. Values need no escapes.
func (k streamKey) labels() string {
	text := `{instance="` + k.instance + `"`
	if k.level != "" {
		text += `, level="` + k.level + `"`
	}
	return text + `, service="` + k.service + `"}`
}

// Take gives the body, compressed as the protocol wants it, and starts anew.
func (p *Push) Take() ([]byte, Span) {
	var message []byte
	for _, stream := range p.order {
		message = appendBytes(message, tagStreams, stream.encoded)
	}
	held := p.held
	*p = Push{}
	return snappy.Encode(nil, message), held
}

func appendBytes(out []byte, tag byte, value []byte) []byte {
	return append(binary.AppendUvarint(append(out, tag), uint64(len(value))), value...)
}
