package records

import (
	"fmt"
	"strconv"
	"strings"
)

// template is a message with parameters: "order {order} paid". Literals and kinds of parameters take turns.
type template struct {
	literals   []string // one more than parameters
	parameters []parameter
}

// parameter is a kind of value in a message.
type parameter uint8

const (
	order parameter = iota
	user
	millis
	micros
	count
	amount
	sku
	reason
	card
	upstream
	topic
	address
	port
	pid
	block
	file
	table
	node
	pod
	term
	hex
	account
	size
	clock
	httpPath
	device
	interval
)

var parametersByName = map[string]parameter{
	"order": order, "user": user, "millis": millis, "micros": micros, "count": count, "amount": amount, "sku": sku,
	"reason": reason, "card": card, "upstream": upstream, "topic": topic, "address": address, "port": port, "pid": pid,
	"block": block, "file": file, "table": table, "node": node, "pod": pod, "term": term, "hex": hex,
	"account": account, "size": size, "clock": clock, "path": httpPath, "device": device, "interval": interval,
}

var (
	reasons   = []string{"card expired", "insufficient funds", "card stolen", "issuer unavailable", "limit exceeded", "suspected fraud", "wrong cvc"}
	cards     = []string{"visa", "mastercard", "amex", "maestro"}
	upstreams = []string{"inventory:8080", "ledger:9090", "redis-sessions:6379", "postgres-main:5432", "search-index:9200", "tax-service:8080", "geo:8081", "mailer:2525"}
	topics    = []string{"orders.created", "payments.settled", "stock.changed", "users.updated", "emails.outbound", "carts.abandoned"}
	files     = []string{"/var/log/syslog", "/etc/cron.daily/logrotate", "/usr/lib/sysstat/debian-sa1", "/opt/backup/run.sh", "/usr/local/bin/rotate-keys", "/srv/reports/nightly.py"}
	tables    = []string{"orders", "order_items", "payments", "customers", "stock_levels", "sessions", "audit_log"}
	accounts  = []string{"root", "admin", "deploy", "postgres", "ubuntu", "backup", "git", "oracle", "test", "jenkins"}
	devices   = []string{"eth0", "ens5", "sda1", "nvme0n1", "veth1f2a", "docker0", "md127"}
)

func compile(text string) template {
	var compiled template
	for {
		literal, rest, more := strings.Cut(text, "{")
		compiled.literals = append(compiled.literals, literal)
		if !more {
			return compiled
		}
		name, after, _ := strings.Cut(rest, "}")
		kind, known := parametersByName[name]
		if !known {
			panic(fmt.Sprintf("template parameter %q is not known", name)) // our own tables, below
		}
		compiled.parameters = append(compiled.parameters, kind)
		text = after
	}
}

func compileAll(texts []string) []template {
	compiled := make([]template, len(texts))
	for i, text := range texts {
		compiled[i] = compile(text)
	}
	return compiled
}

// write appends the message; values come from the generator's random numbers and the request at hand.
func (t template) write(out []byte, g *Generator, request *request) []byte {
	for i, kind := range t.parameters {
		out = append(out, t.literals[i]...)
		out = kind.write(out, g, request)
	}
	return append(out, t.literals[len(t.literals)-1]...)
}

func (p parameter) write(out []byte, g *Generator, request *request) []byte {
	random := &g.random
	one := func(of []string) []byte { return append(out, of[random.below(len(of))]...) }
	number := func(from, below int) []byte { return strconv.AppendInt(out, int64(from+random.below(below-from)), 10) }
	switch p {
	case order:
		return strconv.AppendInt(out, int64(request.order), 10)
	case user:
		return strconv.AppendInt(out, int64(request.user), 10)
	case millis:
		return strconv.AppendInt(out, int64(random.below(30)*random.below(250)+1), 10)
	case micros:
		return number(11, 900)
	case count:
		return strconv.AppendInt(out, int64(random.below(12)*random.below(12)+1), 10)
	case amount:
		return appendDecimal(out, 199+random.below(90)*random.below(500), 2)
	case sku:
		return number(10_000, 14_000)
	case reason:
		return one(reasons)
	case card:
		return one(cards)
	case upstream:
		return one(upstreams)
	case topic:
		return one(topics)
	case address:
		return appendAddress(out, random)
	case port:
		return number(32_768, 60_999)
	case pid:
		return number(400, 32_768)
	case block:
		return strconv.AppendInt(append(out, "blk_"...), int64(random.next()>>1), 10)
	case file:
		return one(files)
	case table:
		return one(tables)
	case node:
		return number(1, 25)
	case pod:
		out = one(serviceNames)
		return appendHex(append(out, '-'), random.next()>>44, 5)
	case term:
		return number(41, 44)
	case hex:
		return appendHex(out, random.next(), 12)
	case account:
		return one(accounts)
	case size:
		return number(180, 64_000)
	case clock:
		return appendAccessTime(out, g.timeNs)
	case httpPath:
		return g.appendPath(out, &g.services[random.below(len(g.services))])
	case device:
		return one(devices)
	default: // interval, a DHCP lease
		return number(1_200, 3_600)
	}
}
