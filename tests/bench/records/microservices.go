package records

import "strconv"

// service is one of the microservices, each with three instances.
type service struct {
	name      string
	instances [3]string
	paths     []route
	// messages by level, in the order of levels.
	messages [4][]template
	// typicalMicros is the mean duration of a request.
	typicalMicros float64
}

// route is a path; an id follows the prefix when there are ids.
type route struct {
	method, prefix, suffix string
	ids                    int
}

// levels of microservices, and how many of 100 lines have them.
var (
	levels      = [4]string{"debug", "info", "warn", "error"}
	levelShares = [4]int{20, 73, 5, 2}
)

var serviceNames = []string{
	"payments-api", "orders-api", "cart-service", "catalog", "search", "users-api",
	"auth-service", "inventory", "shipping", "notifications", "gateway", "recommendations",
}

// Messages that any service writes, beside its own.
var (
	anyDebug = []string{
		"cache lookup key=session:{user} took {micros}us", "sql: select from {table} returned {count} rows in {millis} ms",
		"feature flags evaluated for user {user}: {count} active", "connection pool: {count} idle, {count} in use",
	}
	anyInfo = []string{
		"request completed in {millis} ms", "published event {topic} for order {order}", "user {user} session refreshed",
		"fetched {count} items from {upstream} in {millis} ms",
	}
	anyWarn = []string{
		"upstream {upstream} connection timed out after {millis} ms, retry {count}", "slow query on {table}: {millis} ms",
		"rate limit close for user {user}: {count} requests left", "circuit to {upstream} half open after {count} failures",
	}
	anyError = []string{
		"request failed: {upstream} connection timed out after {millis} ms", "unhandled exception in handler: deadlock on table {table}",
		"upstream {upstream} answered 503 after {count} attempts", "failed to publish {topic}: broker not available",
	}
)

// own are the messages of one service by level; empty lists mean that it only writes those of any service.
var own = map[string][4][]string{
	"payments-api": {
		{"risk score for order {order}: {count}", "idempotency key {hex} is new"},
		{"payment of {amount} EUR captured for order {order} with {card}", "payment authorised for order {order}: {card}, {amount} EUR",
			"payment declined for order {order}: {reason}", "refund of {amount} EUR sent for order {order}"},
		{"payment declined for order {order}: {reason}, customer {user} asked again", "{card} answered slowly for order {order}: {millis} ms"},
		{"payment declined for order {order}: {reason}, no other method", "ledger entry for order {order} not balanced by {amount} EUR"},
	},
	"orders-api": {
		{"order {order}: state machine entered step {count}"},
		{"order {order} created by user {user} with {count} items, total {amount} EUR", "order {order} confirmed", "order {order}: card accepted, {amount} EUR reserved"},
		{"order {order}: card expired, asking user {user} for another", "order {order} changed while it was being packed"},
		{"order {order}: card stolen, order held", "order {order} could not be stored: version {count} is stale"},
	},
	"cart-service": {
		{"cart of user {user} loaded: {count} lines"}, {"item {sku} added to cart of user {user}", "cart of user {user} priced at {amount} EUR"},
		{"cart of user {user} has an item that is sold out: {sku}"}, {"cart of user {user} lost: version {count} not found"},
	},
	"catalog": {
		{"product {sku} rendered from cache"}, {"product {sku} viewed by user {user}", "price of {sku} is {amount} EUR"},
		{"image of {sku} missing, placeholder served"}, {"product {sku} has no price in EUR"},
	},
	"search": {
		{"query rewritten in {micros}us"}, {"search returned {count} hits in {millis} ms", "index refreshed: {size} documents"},
		{"search over {millis} ms, answer cut to {count} hits"}, {"shard {count} of index products failed: {hex}"},
	},
	"users-api": {
		{"profile of {user} served from replica"}, {"user {user} updated address {hex}", "user {user} verified e-mail"},
		{"user {user} has {count} failed logins"}, {"user {user} could not be merged with {hex}"},
	},
	"auth-service": {
		{"token {hex} introspected in {micros}us"}, {"user {user} logged in from {address}", "token issued for user {user}, expires in {interval} s"},
		{"login rejected for user {user} from {address}: wrong password"}, {"signing key {hex} not found"},
	},
	"inventory": {
		{"stock of {sku} read: {count}"}, {"{count} of {sku} reserved for order {order}", "stock of {sku} is now {count}"},
		{"stock of {sku} is low: {count} left"}, {"stock of {sku} below zero for order {order}"},
	},
	"shipping": {
		{"label {hex} rendered in {millis} ms"}, {"parcel {hex} for order {order} handed to carrier", "route of parcel {hex} planned in {millis} ms"},
		{"parcel {hex} is late by {count} h"}, {"carrier refused parcel {hex}: address of user {user} is incomplete"},
	},
	"notifications": {
		{"template {count} rendered for user {user}"}, {"e-mail {hex} to user {user} queued", "push to user {user} delivered in {millis} ms"},
		{"e-mail {hex} bounced, attempt {count}"}, {"mail relay {address} refused {hex}"},
	},
	"gateway": {
		{"route matched in {micros}us, {count} filters"}, {"forwarded to {upstream} in {millis} ms", "client {address} connected, {count} streams"},
		{"client {address} sent {size} bytes, more than announced"}, {"no healthy backend behind {upstream}"},
	},
	"recommendations": {
		{"model scored {count} candidates in {micros}us"}, {"{count} recommendations for user {user} in {millis} ms", "model {hex} loaded"},
		{"fallback list served to user {user}: model answered after {millis} ms"}, {"model {hex} has no features for user {user}"},
	},
}

var serviceRoutes = map[string][]route{
	"payments-api":    {{"POST", "/api/v1/payments", "", 0}, {"GET", "/api/v1/payments/", "", 90_000}, {"POST", "/api/v1/payments/", "/refund", 90_000}},
	"orders-api":      {{"POST", "/api/v1/orders", "", 0}, {"GET", "/api/v1/orders/", "", 90_000}, {"PUT", "/api/v1/orders/", "/items", 90_000}},
	"cart-service":    {{"GET", "/api/v1/carts/", "", 58_000}, {"PUT", "/api/v1/carts/", "/items", 58_000}},
	"catalog":         {{"GET", "/api/v1/products/", "", 4_000}, {"GET", "/api/v1/categories/", "/products", 120}},
	"search":          {{"GET", "/api/v1/search", "", 0}, {"GET", "/api/v1/suggest", "", 0}},
	"users-api":       {{"GET", "/api/v1/users/", "", 58_000}, {"PATCH", "/api/v1/users/", "/address", 58_000}},
	"auth-service":    {{"POST", "/oauth/token", "", 0}, {"POST", "/oauth/introspect", "", 0}},
	"inventory":       {{"GET", "/internal/stock/", "", 4_000}, {"POST", "/internal/stock/", "/reserve", 4_000}},
	"shipping":        {{"POST", "/internal/parcels", "", 0}, {"GET", "/internal/parcels/", "/route", 90_000}},
	"notifications":   {{"POST", "/internal/messages", "", 0}, {"GET", "/internal/messages/", "", 90_000}},
	"gateway":         {{"GET", "/", "", 0}, {"GET", "/api/v1/products/", "", 4_000}, {"GET", "/api/v1/carts/", "", 58_000}, {"POST", "/api/v1/checkout", "", 0}},
	"recommendations": {{"GET", "/api/v1/recommendations/", "", 58_000}},
}

func makeServices() []service {
	services := make([]service, len(serviceNames))
	for i, name := range serviceNames {
		s := service{name: name, paths: serviceRoutes[name], typicalMicros: 4_000 + 3_500*float64(i)}
		for n := range s.instances {
			tail := string(appendHex(nil, mixed(uint64(i*3+n)), 5))
			s.instances[n] = name + "-6d4cf56db-" + tail
		}
		for level, shared := range [4][]string{anyDebug, anyInfo, anyWarn, anyError} {
			s.messages[level] = append(compileAll(own[name][level]), compileAll(shared)...)
		}
		services[i] = s
	}
	return services
}

// request is what lines of one trace share.
type request struct {
	traceHigh, traceLow uint64
	user, order         int
	linesLeft           int
	// The line's service stays for some lines, and with it path and request id.
	at                       int
	instance                 int
	route                    route
	path                     []byte
	requestIDHigh, requestID uint64
}

func (g *Generator) startRequest(r *request) {
	r.traceHigh, r.traceLow = g.random.next(), g.random.next()
	rank := g.users.draw(&g.random)
	r.user = 100_000 + int(mixed(uint64(rank))%10)*58_000 + rank
	r.order = 1_000_000 + int(g.made/8) + g.random.below(500)
	r.linesLeft = 1 + g.random.below(12)
	g.enterService(r)
}

// enterService lets a request go on in another service.
func (g *Generator) enterService(r *request) {
	r.at = g.random.below(len(g.services))
	r.instance = g.random.below(3)
	s := &g.services[r.at]
	r.route = s.paths[g.random.below(len(s.paths))]
	r.path = g.appendRoute(r.path[:0], r.route)
	r.requestIDHigh, r.requestID = g.random.next(), g.random.next()
}

func (g *Generator) appendPath(out []byte, s *service) []byte {
	return g.appendRoute(out, s.paths[g.random.below(len(s.paths))])
}

// appendRoute writes a path; few ids are asked for often, most seldom.
func (g *Generator) appendRoute(out []byte, r route) []byte {
	out = append(out, r.prefix...)
	if r.ids > 0 {
		u := g.random.fraction()
		id := int(u * u * u * float64(r.ids))
		out = strconv.AppendInt(out, int64(10_000+id), 10)
	}
	return append(out, r.suffix...)
}

// regions of the three instances.
var regions = [3]string{"eu-west-1", "eu-west-3", "eu-central-1"}

var statuses = [4][]int{{200, 200, 204}, {200, 200, 200, 201, 304}, {400, 404, 409, 429}, {500, 502, 503, 504}}

// microservice makes a line of one of the running requests.
func (g *Generator) microservice(record *Record) {
	r := &g.requests[g.random.below(len(g.requests))]
	if r.linesLeft == 0 {
		g.startRequest(r)
	} else if g.random.below(3) == 0 {
		g.enterService(r)
	}
	r.linesLeft--
	s := &g.services[r.at]
	level := g.drawLevel()
	messages := s.messages[level]
	g.message = messages[g.random.below(len(messages))].write(g.message[:0], g, r)
	g.markRare()

	record.Service, record.Instance, record.Level = s.name, s.instances[r.instance], levels[level]
	record.TraceID = appendHex(appendHex(record.TraceID[:0], r.traceHigh, 16), r.traceLow, 16)
	line := g.openLine(record)
	line = appendText(append(line, `,"msg":"`...), g.message)
	line = append(append(line, `","trace_id":"`...), record.TraceID...)
	line = appendHex(append(line, `","span_id":"`...), g.random.next(), 16)
	line = appendUUID(append(line, `","request_id":"`...), r.requestIDHigh, r.requestID)
	line = strconv.AppendInt(append(line, `","user_id":`...), int64(r.user), 10)
	line = appendHex(append(line, `,"device_id":"`...), mixed(uint64(r.user)<<1|uint64(r.order&1)), 16)
	line = append(append(line, `","method":"`...), r.route.method...)
	line = append(append(line, `","path":"`...), r.path...)
	status := statuses[level][g.random.below(len(statuses[level]))]
	line = strconv.AppendInt(append(line, `","status":`...), int64(status), 10)
	line = append(append(line, `,"region":"`...), regions[r.instance]...)
	line = appendDecimal(append(line, `","duration_ms":`...), g.drawMicros(s)/10, 2)
	record.Line = append(line, '}')
	record.Plain = record.Line
}

func (g *Generator) drawLevel() int {
	draw := g.random.below(100)
	for level, share := range levelShares {
		if draw < share {
			return level
		}
		draw -= share
	}
	panic("the shares of levels do not sum up to 100")
}

// drawMicros is a duration: most are below the service's usual one, some eight times as long. Products only, as sums of
// products are rounded differently on machines that fuse them.
func (g *Generator) drawMicros(s *service) int {
	return int(s.typicalMicros * 2 * g.random.fraction() * 2 * g.random.fraction() * 2 * g.random.fraction())
}
