package host

import (
	"net"
	"strings"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"quiver/tests/host/grafana"
)

func instanceAt(t *testing.T, grpcAddress string) grafana.Instance {
	instance := grafana.NewInstance(grpcAddress)
	instance.UID = newUID(t)
	return instance
}

func health(t *testing.T, instance grafana.Instance) *backend.CheckHealthResult {
	t.Helper()
	result, err := plugin.CheckHealth(contextOf(t), instance)
	if err != nil {
		t.Fatalf("check health: %v", err)
	}
	return result
}

// wantUnhealthy checks that the failure is told in words: each of them, in any case, must be in the message.
func wantUnhealthy(t *testing.T, instance grafana.Instance, words ...string) {
	t.Helper()
	result := health(t, instance)
	if result.Status != backend.HealthStatusError {
		t.Errorf("status %s with message %q, want ERROR", result.Status, result.Message)
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(result.Message), strings.ToLower(word)) {
			t.Errorf("message %q does not say %q", result.Message, word)
		}
	}
}

func TestHealthyStore(t *testing.T) {
	h := newHost(t)
	result := health(t, h.instance)
	if result.Status != backend.HealthStatusOk || result.Message == "" {
		t.Errorf("got %s %q, want OK and a message", result.Status, result.Message)
	}
}

func TestHealthWhenNothingListens(t *testing.T) {
	address := freeAddress(t)
	wantUnhealthy(t, instanceAt(t, address), address, "refused")
}

// The most likely mistake of all: the URL of the HTTP port, where the logs are pushed to.
func TestHealthOnTheHTTPPortNamesTheGRPCPort(t *testing.T) {
	h := newHost(t)
	instance := instanceAt(t, h.store.HTTP)
	wantUnhealthy(t, instance, "grpc")
}

func TestHealthOfAServerThatNeverAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	instance := instanceAt(t, listener.Addr().String())
	instance.JSONData["timeoutSeconds"] = 1
	wantUnhealthy(t, instance, listener.Addr().String())
}

func TestHealthWithoutURL(t *testing.T) {
	instance := instanceAt(t, "")
	instance.URL = ""
	wantUnhealthy(t, instance, "url")
}

func TestHealthWithAnUnusableURL(t *testing.T) {
	instance := instanceAt(t, "")
	instance.URL = "not a url"
	wantUnhealthy(t, instance, "not a url")
}

func TestHealthWithTLSOnAPlainPort(t *testing.T) {
	h := newHost(t)
	instance := instanceAt(t, h.store.GRPC)
	instance.URL = "https://" + h.store.GRPC
	wantUnhealthy(t, instance, "tls")
}

func TestHealthWithTokens(t *testing.T) {
	h := newHost(t, "QUIVER_SERVER_AUTH_TOKENS=the-right-one")
	without := instanceAt(t, h.store.GRPC)
	wantUnhealthy(t, without, "token")

	wrong := instanceAt(t, h.store.GRPC)
	wrong.Secrets = map[string]string{"token": "the-wrong-one"}
	wantUnhealthy(t, wrong, "token")
	if message := health(t, wrong).Message; strings.Contains(message, "the-wrong-one") {
		t.Errorf("message %q tells the secret", message)
	}

	right := instanceAt(t, h.store.GRPC)
	right.Secrets = map[string]string{"token": "the-right-one"}
	if result := health(t, right); result.Status != backend.HealthStatusOk {
		t.Errorf("with the right token: %s %q", result.Status, result.Message)
	}
}

// Somebody corrects the token in the form and presses "Save & test" again: the same data source, newer settings.
func TestHealthAfterTheTokenIsCorrected(t *testing.T) {
	h := newHost(t, "QUIVER_SERVER_AUTH_TOKENS=the-right-one")
	instance := instanceAt(t, h.store.GRPC)
	instance.Secrets = map[string]string{"token": "the-wrong-one"}
	wantUnhealthy(t, instance, "token")
	instance.Secrets = map[string]string{"token": "the-right-one"}
	instance.Updated = noon.AddDate(1, 0, 0)
	if result := health(t, instance); result.Status != backend.HealthStatusOk {
		t.Errorf("after the correction: %s %q", result.Status, result.Message)
	}
}
