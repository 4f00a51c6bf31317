package workload

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"quiver/tests/host/push"
)

// A quiet second once sent a push without streams, which the store refuses; the lines of the others then came twice.
func TestASecondInWhichAServiceSaysNothingSendsNothingForIt(t *testing.T) {
	paths := make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path + " " + r.Header.Get("Content-Type")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	s := Shop{client: push.Client{HTTP: strings.TrimPrefix(server.URL, "http://")}}
	if err := s.send(t.Context(), []event{{service: "payments-api", at: time.Now(), level: "info", message: "alone"}}); err != nil {
		t.Fatal(err)
	}
	close(paths)
	var sent []string
	for path := range paths {
		sent = append(sent, path)
	}
	if len(sent) != 1 || sent[0] != "/loki/api/v1/push application/x-protobuf" {
		t.Errorf("sent %q, want one push by protobuf", sent)
	}
}
