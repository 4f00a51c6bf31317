package records

// daemon is a kind of system log: plain text under a service's name, from one of 24 hosts.
type daemon struct {
	name     string
	hasLevel bool
	// usual lines; rarer ones are written as warn and as error.
	usual, warn, failed []template
}

// Lines of daemons without a level have no word that reads as one, so that every store knows the same levels.
var daemonTexts = []struct {
	name     string
	hasLevel bool
	usual    []string
	warn     []string
	failed   []string
}{
	{name: "sshd", usual: []string{
		"Failed password for invalid user {account} from {address} port {port} ssh2", "Accepted publickey for {account} from {address} port {port} ssh2: RSA SHA256:{hex}",
		"Received disconnect from {address} port {port}:11: Bye Bye [preauth]", "pam_unix(sshd:session): session opened for user {account} by (uid=0)",
		"Connection closed by {address} port {port} [preauth]"}},
	{name: "kernel", usual: []string{
		"[{pid}.{order}] {device}: link becomes ready", "[{pid}.{order}] audit: type=1400 audit({order}): apparmor=\"ALLOWED\" pid={pid} comm=\"node\"",
		"[{pid}.{order}] TCP: request_sock_TCP: Possible SYN flooding on port {port}. Sending cookies.", "[{pid}.{order}] EXT4-fs ({device}): mounted filesystem with ordered data mode",
		"[{pid}.{order}] oom_reaper: reaped process {pid} (java), now anon-rss:0kB, file-rss:{size}kB"}},
	{name: "cron", usual: []string{
		"({account}) CMD ({file} > /dev/null 2>&1)", "pam_unix(cron:session): session closed for user {account}", "({account}) CMD (cd / && run-parts --report /etc/cron.hourly)"}},
	{name: "nginx", usual: []string{
		"{address} - - [{clock}] \"GET {path} HTTP/1.1\" 200 {size} \"-\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"",
		"{address} - - [{clock}] \"POST {path} HTTP/1.1\" 201 {size} \"-\" \"okhttp/4.12.0\"", "{address} - - [{clock}] \"GET {path} HTTP/2.0\" 304 0 \"-\" \"curl/8.5.0\""}},
	{name: "systemd", usual: []string{
		"Started session-{pid}.scope - Session {pid} of user {account}.", "Starting apt-daily.service - Daily apt download activities...",
		"logrotate.service: Deactivated successfully.", "Finished sysstat-collect.service - system activity accounting tool."}},
	{name: "sudo", usual: []string{
		"{account} : TTY=pts/{count} ; PWD=/home/{account} ; USER=root ; COMMAND=/usr/bin/systemctl restart {table}", "pam_unix(sudo:session): session opened for user root(uid=0) by {account}(uid={pid})"}},
	{name: "dhclient", usual: []string{
		"DHCPREQUEST for {address} on {device} to {address} port 67", "DHCPACK of {address} from {address}", "bound to {address} -- renewal in {interval} seconds."}},
	{name: "haproxy", usual: []string{
		"{address}:{port} [{clock}] https~ api/node-{node} 0/0/{count}/{millis}/{millis} 200 {size} - - ---- {count}/{count}/0/0/0 0/0 \"GET {path} HTTP/1.1\"",
		"{address}:{port} [{clock}] https~ web/node-{node} 0/0/{count}/{millis}/{millis} 302 {size} - - ---- {count}/{count}/0/0/0 0/0 \"GET {path} HTTP/1.1\""}},
	{name: "hdfs-datanode", hasLevel: true, usual: []string{
		"PacketResponder {count} for block {block} terminating", "Receiving block {block} src: /{address}:{port} dest: /{address}:50010",
		"Received block {block} of size {size} from /{address}", "Verification succeeded for {block}"},
		warn:   []string{"Slow BlockReceiver write packet to mirror took {millis}ms (threshold=300ms)"},
		failed: []string{"DataXceiver: java.io.IOException: Connection reset by peer while sending {block} to /{address}:{port}"}},
	{name: "postgres", hasLevel: true, usual: []string{
		"checkpoint complete: wrote {size} buffers ({count}%); write={millis} ms, sync={micros} us", "connection authorized: user={account} database=shop application_name=psql",
		"automatic vacuum of table \"shop.public.{table}\": index scans: {count}", "duration: {millis} ms  execute S_{count}: SELECT id FROM {table} WHERE customer_id = $1"},
		warn:   []string{"there is already a transaction in progress (pid {pid})"},
		failed: []string{"duplicate key value violates unique constraint \"{table}_pkey\" for key {order}", "deadlock detected: process {pid} waits for ShareLock on transaction {order}"}},
	{name: "kubelet", hasLevel: true, usual: []string{
		"SyncLoop (PLEG): event for pod default/{pod}: ContainerStarted {hex}", "Probe succeeded for container app of pod default/{pod} in {micros}us", "Image garbage collection freed {size} bytes on node-{node}"},
		warn:   []string{"Readiness probe failed for pod default/{pod}: connection refused by {address}:8080"},
		failed: []string{"Back-off restarting failed container app in pod default/{pod}, attempt {count}"}},
	{name: "zookeeper", hasLevel: true, usual: []string{
		"Accepted socket connection from /{address}:{port}", "Closed socket connection for client /{address}:{port} which had sessionid 0x{hex}", "Established session 0x{hex} with negotiated timeout 10000 for client /{address}:{port}"},
		warn:   []string{"caught end of stream exception: unable to read additional data from client sessionid 0x{hex}"},
		failed: []string{"Unexpected exception causing shutdown while sock still open, peer {node}"}},
	{name: "kafka", hasLevel: true, usual: []string{
		"[Log partition={topic}-{count}, dir=/var/lib/kafka] Rolled new log segment at offset {order} in {count} ms.", "[GroupCoordinator {node}]: Stabilized group checkout generation {count} with {count} members", "[ReplicaFetcher replicaId={node}] Partition {topic}-{count} caught up at offset {order}"},
		warn:   []string{"[SocketServer brokerId={node}] connection from /{address} closed: frame of {size} bytes"},
		failed: []string{"[ReplicaManager broker={node}] Offset {order} of {topic}-{count} is out of range"}},
	{name: "etcd", hasLevel: true, usual: []string{
		"finished scheduled compaction at revision {order}, took {millis}ms", "store.index: compact {order}", "{hex} [term: {term}] received a heartbeat from {hex}"},
		warn:   []string{"apply request took too long: {millis}ms, expected 100ms, prefix /registry/{table}"},
		failed: []string{"lost leader {hex} at term {term}"}},
	{name: "redis", hasLevel: true, usual: []string{
		"{count} changes in 300 seconds. Saving...", "Background saving started by pid {pid}", "DB saved on disk, {size} kB, fork took {micros}us"},
		warn:   []string{"client addr={address}:{port} closed for overcoming of output buffer limits"},
		failed: []string{"MASTER aborted replication with replica {address}:{port}"}},
	{name: "containerd", hasLevel: true, usual: []string{
		"StartContainer for \"{hex}\" returns successfully", "shim disconnected id {hex} pid {pid}", "ImageCreate event name registry.local/{pod}:{term}"},
		warn:   []string{"cleaning up after shim disconnected id {hex}"},
		failed: []string{"RemoveContainer for \"{hex}\" failed: container is in state running"}},
}

func makeDaemons() []daemon {
	daemons := make([]daemon, len(daemonTexts))
	for i, texts := range daemonTexts {
		daemons[i] = daemon{
			name: texts.name, hasLevel: texts.hasLevel,
			usual: compileAll(texts.usual), warn: compileAll(texts.warn), failed: compileAll(texts.failed),
		}
	}
	return daemons
}

const hostCount = 24

func makeHosts() [hostCount]string {
	var hosts [hostCount]string
	for i := range hosts {
		hosts[i] = string(appendPadded([]byte("node-"), i+1, 2))
	}
	return hosts
}

// system makes a line of one of the daemons.
func (g *Generator) system(record *Record) {
	d := &g.daemons[g.random.below(len(g.daemons))]
	texts, level := d.usual, ""
	if d.hasLevel {
		level = "info"
		switch draw := g.random.below(100); {
		case draw < 6:
			texts, level = d.failed, "error"
		case draw < 12:
			texts, level = d.warn, "warn"
		}
	}
	g.systemRequest.order = 10_000 + int(g.made*13) + g.random.below(10_000)
	g.message = texts[g.random.below(len(texts))].write(g.message[:0], g, &g.systemRequest)
	g.markRare()

	record.Service, record.Instance, record.Level = d.name, g.hosts[g.random.below(hostCount)], level
	record.TraceID = record.TraceID[:0]
	line := g.openLine(record)
	line = appendText(append(line, `,"msg":"`...), g.message)
	record.Line = append(line, `"}`...)
	record.Plain = g.message
}
