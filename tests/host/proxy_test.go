package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/proxy"
)

// proxyName is the name in the proxy's certificate, which is not its address.
const proxyName = "proxy.test"

// authority signs certificates; its own is in a file.
type authority struct {
	t           *testing.T
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.certificate, a.key, a.file, _ = a.sign(name, template, nil)
	return a
}

// leaf is a certificate for a name, and the files of it and of its key.
func (a *authority) leaf(name string) (pair tls.Certificate, certificate, key string) {
	a.t.Helper()
	template := &x509.Certificate{
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	_, _, certificate, key = a.sign(name, template, a.certificate)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair, certificate, key
}

// sign makes a certificate and its key, and writes both to files; without a parent it signs itself.
func (a *authority) sign(name string, template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file := func(suffix, kind string, der []byte) string {
		path := filepath.Join(a.dir, name+suffix)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
		return path
	}
	return certificate, key, file(".pem", "CERTIFICATE", der), file(".key", "PRIVATE KEY", keyDER)
}

// passage is a connection that the proxy let through.
type passage struct{ user, password, target string }

// startSocks is a SOCKS5 proxy over TLS that wants a certificate of the authority, a user and a password.
func startSocks(t *testing.T, a *authority) (address string, passages <-chan passage) {
	t.Helper()
	pair, _, _ := a.leaf(proxyName)
	trusted := x509.NewCertPool()
	trusted.AddCert(a.certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	passed := make(chan passage, 100)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go serveSocks(client, passed)
		}
	}()
	return listener.Addr().String(), passed
}

func serveSocks(client net.Conn, passed chan<- passage) {
	defer client.Close()
	seen, err := greetSocks(client)
	if err != nil {
		return
	}
	target, err := net.Dial("tcp", seen.target)
	if err != nil {
		return
	}
	defer target.Close()
	if _, err := client.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		return
	}
	passed <- seen
	go func() {
		defer target.Close()
		_, _ = io.Copy(target, client)
	}()
	_, _ = io.Copy(client, target)
}

// greetSocks does RFC 1928 with RFC 1929: version and methods, user and password, the address to connect to.
func greetSocks(client io.ReadWriter) (seen passage, err error) {
	text := func() string {
		var length [1]byte
		if err == nil {
			_, err = io.ReadFull(client, length[:])
		}
		bytes := make([]byte, length[0])
		if err == nil {
			_, err = io.ReadFull(client, bytes)
		}
		return string(bytes)
	}
	exact := func(count int) []byte {
		bytes := make([]byte, count)
		if err == nil {
			_, err = io.ReadFull(client, bytes)
		}
		return bytes
	}
	answer := func(bytes ...byte) {
		if err == nil {
			_, err = client.Write(bytes)
		}
	}
	exact(1)
	if !strings.Contains(text(), "\x02") {
		return seen, errors.Join(err, errors.New("no user and password are offered"))
	}
	answer(5, 2)
	exact(1)
	seen.user, seen.password = text(), text()
	answer(1, 0)
	var host string
	switch head := exact(4); head[3] {
	case 1:
		host = net.IP(exact(4)).String()
	case 3:
		host = text()
	default:
		return seen, errors.Join(err, errors.New("an address of another kind"))
	}
	seen.target = net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(exact(2)))))
	return seen, err
}

// What stands in grafana.ini reaches plugins as these variables (EnvVarsProvider.secureSocksProxyEnvVars in Grafana 12.3).
func TestThroughTheSecureSocksProxy(t *testing.T) {
	h := newHost(t)
	a, other := newAuthority(t, "authority"), newAuthority(t, "other")
	address, passages := startSocks(t, a)
	_, certificate, key := a.leaf("grafana")
	through := startPlugin(t,
		proxy.PluginSecureSocksProxyEnabledEnvVarName+"=true",
		proxy.PluginSecureSocksProxyAddressEnvVarName+"="+address,
		proxy.PluginSecureSocksProxyRootCACertFilePathsEnvVarName+"="+other.file+" "+a.file,
		proxy.PluginSecureSocksProxyClientCertFilePathEnvVarName+"="+certificate,
		proxy.PluginSecureSocksProxyClientKeyFilePathEnvVarName+"="+key,
		proxy.PluginSecureSocksProxyServerNameEnvVarName+"="+proxyName,
		proxy.PluginSecureSocksProxyAllowInsecureEnvVarName+"=false",
	)
	h.instance.JSONData["enableSecureSocksProxy"] = true
	h.instance.Secrets = map[string]string{"secureSocksProxyPassword": "let me in"}
	result, err := through.CheckHealth(h.context(), h.instance)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != backend.HealthStatusOk {
		t.Fatalf("%s %q", result.Status, result.Message)
	}
	want := passage{user: h.instance.UID, password: "let me in", target: h.store.GRPC}
	if got := <-passages; got != want {
		t.Errorf("the proxy saw %+v, want %+v", got, want)
	}
}

func TestASecureSocksProxyThatGrafanaDoesNotHave(t *testing.T) {
	h := newHost(t)
	h.instance.JSONData["enableSecureSocksProxy"] = true
	wantUnhealthy(t, h.instance, "secure socks proxy", "off in Grafana's configuration")
}
