// Package grafana starts and calls the data source plugin the way Grafana 12.3 does: hashicorp/go-plugin starts the
// binary, grafana-plugin-sdk-go v0.281.0 (the version Grafana 12.3.0 pins) encodes the requests and decodes the frames.
//
// It is not a stand-in for Grafana: there is no HTTP API, no database and no browser, only the border to the plugin.
// Invariant: nothing here knows the plugin; whatever arrives has passed the decoders that Grafana uses.
package grafana

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
)

// Version is the Grafana this package stands for.
const Version = "12.3.0"

// PluginID is the id under which Grafana knows the data source.
const PluginID = "quiver-logs-datasource"

// pluginSet lists every service that Grafana dispenses for protocol version 2.
func pluginSet() goplugin.PluginSet {
	return goplugin.PluginSet{
		"diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{},
		"resource":    &grpcplugin.ResourceGRPCPlugin{},
		"data":        &grpcplugin.DataGRPCPlugin{},
		"stream":      &grpcplugin.StreamGRPCPlugin{},
		"admission":   &grpcplugin.AdmissionGRPCPlugin{},
		"conversion":  &grpcplugin.ConversionGRPCPlugin{},
	}
}

// Plugin is a running plugin process and the clients of its services.
type Plugin struct {
	command     *exec.Cmd
	client      *goplugin.Client
	diagnostics grpcplugin.DiagnosticsClient
	resource    grpcplugin.ResourceClient
	data        grpcplugin.DataClient
	stream      grpcplugin.StreamClient
}

// Start starts the binary and waits for its handshake. What the plugin logs goes to logs: hclog JSON on its stderr is
// parsed as Grafana parses it, so a line in another format shows as such. Further variables are those that Grafana makes of
// its configuration.
func Start(binary string, logs io.Writer, env ...string) (*Plugin, error) {
	command := exec.Command(binary)
	// Grafana passes these; go-plugin adds Grafana's own environment, the cookie and the port range.
	command.Env = append([]string{
		"GF_VERSION=" + Version,
		"GF_EDITION=Open Source",
		"GF_ENTERPRISE_LICENSE_PATH=",
		"GF_ENTERPRISE_APP_URL=http://localhost:3000/",
	}, env...)
	// Its own process group: a Ctrl-C in a terminal reaches only us, and we end our children in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		Cmd: command,
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  grpcplugin.ProtocolVersion,
			MagicCookieKey:   grpcplugin.MagicCookieKey,
			MagicCookieValue: grpcplugin.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{grpcplugin.ProtocolVersion: pluginSet()},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Name: "plugin", Output: logs, Level: hclog.Debug}),
	})
	plugin := &Plugin{command: command, client: client}
	if err := plugin.dispense(); err != nil {
		client.Kill()
		return nil, fmt.Errorf("start plugin %q: %w", binary, err)
	}
	return plugin, nil
}

func (p *Plugin) dispense() error {
	rpc, err := p.client.Client()
	if err != nil {
		return err
	}
	services := map[string]any{}
	for name := range pluginSet() {
		if services[name], err = rpc.Dispense(name); err != nil {
			return fmt.Errorf("dispense %q: %w", name, err)
		}
	}
	var ok [4]bool
	p.diagnostics, ok[0] = services["diagnostics"].(grpcplugin.DiagnosticsClient)
	p.resource, ok[1] = services["resource"].(grpcplugin.ResourceClient)
	p.data, ok[2] = services["data"].(grpcplugin.DataClient)
	p.stream, ok[3] = services["stream"].(grpcplugin.StreamClient)
	if ok != [4]bool{true, true, true, true} {
		return errors.New("a dispensed service has an unexpected client type")
	}
	return nil
}

// Pid is the plugin's process id.
func (p *Plugin) Pid() int { return p.command.Process.Pid }

// Exited tells whether the process has ended.
func (p *Plugin) Exited() bool { return p.client.Exited() }

// Ping asks the plugin's gRPC health service, as Grafana does every second to see whether it must be restarted.
func (p *Plugin) Ping() error {
	rpc, err := p.client.Client()
	if err != nil {
		return err
	}
	return rpc.Ping()
}

// Stop ends the plugin as Grafana does: go-plugin's Shutdown call, and SIGKILL when the process is still there after
// two seconds. The error says that it had to be killed, or that it exited with a failure.
func (p *Plugin) Stop() error {
	p.client.Kill()
	state := p.command.ProcessState
	if state == nil {
		return errors.New("plugin was never waited for")
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("plugin did not stop on request and was ended by signal %q", status.Signal())
	}
	if state.ExitCode() != 0 {
		return fmt.Errorf("plugin exited with code %d", state.ExitCode())
	}
	return nil
}

// CheckHealth is "Save & test".
func (p *Plugin) CheckHealth(ctx context.Context, instance Instance) (*backend.CheckHealthResult, error) {
	response, err := p.diagnostics.CheckHealth(ctx, &pluginv2.CheckHealthRequest{
		PluginContext: backend.ToProto().PluginContext(instance.pluginContext()),
		Headers:       map[string]string{"X-Datasource-Uid": instance.UID, "X-Plugin-Id": PluginID},
	})
	if err != nil {
		return nil, err
	}
	return backend.FromProto().CheckHealthResponse(response), nil
}

// Answer is what the plugin sent for one request of a panel, its frames still as bytes.
type Answer struct{ response *pluginv2.QueryDataResponse }

// Ask sends queries as one request of a panel.
func (p *Plugin) Ask(ctx context.Context, instance Instance, headers map[string]string, queries ...backend.DataQuery) (Answer, error) {
	all := map[string]string{"X-Datasource-Uid": instance.UID, "X-Plugin-Id": PluginID}
	for name, value := range headers {
		all[name] = value
	}
	response, err := p.data.QueryData(ctx, backend.ToProto().QueryDataRequest(&backend.QueryDataRequest{
		PluginContext: instance.pluginContext(),
		Headers:       all,
		Queries:       queries,
	}))
	return Answer{response}, err
}

// Decode reads the frames as Grafana does.
func (a Answer) Decode() (backend.Responses, error) {
	decoded, err := backend.FromProto().QueryDataResponse(a.response)
	if err != nil {
		return nil, fmt.Errorf("decode frames: %w", err)
	}
	return decoded.Responses, nil
}

// QueryData sends queries as one request of a panel, and decodes the frames as Grafana does.
func (p *Plugin) QueryData(ctx context.Context, instance Instance, headers map[string]string, queries ...backend.DataQuery) (backend.Responses, error) {
	answer, err := p.Ask(ctx, instance, headers, queries...)
	if err != nil {
		return nil, err
	}
	return answer.Decode()
}

// CallResource calls a resource of the data source. The path may carry a query string.
func (p *Plugin) CallResource(ctx context.Context, instance Instance, method, path string, body []byte) (*backend.CallResourceResponse, error) {
	pathOnly, _, _ := strings.Cut(path, "?")
	stream, err := p.resource.CallResource(ctx, backend.ToProto().CallResourceRequest(&backend.CallResourceRequest{
		PluginContext: instance.pluginContext(),
		Path:          pathOnly,
		Method:        method,
		URL:           path,
		Headers:       map[string][]string{"Accept": {"application/json"}, "Content-Type": {"application/json"}},
		Body:          body,
	}))
	if err != nil {
		return nil, err
	}
	var whole *backend.CallResourceResponse
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		response := backend.FromProto().CallResourceResponse(part)
		if whole == nil {
			whole = response
		} else {
			whole.Body = append(whole.Body, response.Body...)
		}
	}
	if whole == nil {
		return nil, fmt.Errorf("resource %q sent no answer", path)
	}
	return whole, nil
}

// Subscribe asks whether a viewer may follow the channel; the answer may bring a first frame.
func (p *Plugin) Subscribe(ctx context.Context, instance Instance, path string, request []byte) (*backend.SubscribeStreamResponse, error) {
	response, err := p.stream.SubscribeStream(ctx, backend.ToProto().SubscribeStreamRequest(&backend.SubscribeStreamRequest{
		PluginContext: instance.pluginContext(),
		Path:          path,
		Data:          request,
	}))
	if err != nil {
		return nil, err
	}
	return backend.FromProto().SubscribeStreamResponse(response), nil
}

// Stream is one running channel. Grafana runs one for all viewers of a path.
type Stream struct {
	client pluginv2.Stream_RunStreamClient
	cancel context.CancelFunc
}

// Run starts the channel. It ends when ctx or Close ends it.
func (p *Plugin) Run(ctx context.Context, instance Instance, path string, request []byte) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	client, err := p.stream.RunStream(ctx, backend.ToProto().RunStreamRequest(&backend.RunStreamRequest{
		PluginContext: instance.pluginContext(),
		Path:          path,
		Data:          request,
	}))
	if err != nil {
		cancel()
		return nil, err
	}
	return &Stream{client: client, cancel: cancel}, nil
}

// Next waits for the channel's next frame; the packet is the JSON that Grafana hands to the browser.
func (s *Stream) Next() (frame *data.Frame, packet []byte, err error) {
	received, err := s.client.Recv()
	if err != nil {
		return nil, nil, err
	}
	frame, err = decodePacket(received.Data)
	return frame, received.Data, err
}

// decodePacket reads a live packet with the SDK, whose reader panics on members that come in another order than its
// writer's (schema before data, values before nanos).
func decodePacket(packet []byte) (frame *data.Frame, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("grafana-plugin-sdk-go cannot decode the stream packet (%v): %s", reason, packet)
		}
	}()
	frame = &data.Frame{}
	if err := frame.UnmarshalJSON(packet); err != nil {
		return nil, fmt.Errorf("decode stream packet: %w: %s", err, packet)
	}
	return frame, nil
}

// Close ends the channel, as Grafana does when the last viewer has left.
func (s *Stream) Close() { s.cancel() }
