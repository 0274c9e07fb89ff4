// Package godoty is the client of Godoty, a service that runs agents and accounts for every token.
//
// A [Client] runs turns, whose streams survive lost connections, and has the stubs of all services of the package
// godotyv1 beside it. Errors of its calls are of the type [*Error].
package godoty

import (
	"context"
	_ "embed" // of the service config
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// serviceConfig is generated (make docs): it lets gRPC retry the methods without side effects.
//
//go:embed service_config.json
var serviceConfig string

const (
	// An idle network path is noticed after half a minute; servers allow a ping every 10 seconds.
	pingInterval = 20 * time.Second
	pingTimeout  = 10 * time.Second
)

// Client is a connection to Godoty. It is safe for concurrent use.
type Client struct {
	// Agents runs turns, and has sessions and their cost. A turn is best run by [Client.Converse].
	Agents godotyv1.AgentServiceClient
	// Definitions has the tenant's agents and MCP servers; it needs a key of the scope agents.
	Definitions godotyv1.AgentDefinitionServiceClient
	// Billing has the tenant's usage; it needs a key of the scope billing.
	Billing godotyv1.BillingServiceClient
	// Admin administers tenants and keys; it needs a key of the scope admin.
	Admin godotyv1.AdminServiceClient

	connection *grpc.ClientConn
	grace      time.Duration
}

// New returns a client. Without options, the server is that of GODOTY_LISTEN, the key that of GODOTY_API_KEY, and the
// connection is plain text to this machine and TLS to any other. It connects with the first call.
func New(options ...Option) (*Client, error) {
	settings, err := settingsOf(options)
	if err != nil {
		return nil, err
	}
	dialing := append([]grpc.DialOption{
		grpc.WithTransportCredentials(settings.transport),
		grpc.WithPerRPCCredentials(bearer(settings.apiKey)),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.WithChainUnaryInterceptor(unaryCall(settings.timeout)),
		grpc.WithChainStreamInterceptor(streamCall),
	}, settings.dialing...)
	connection, err := grpc.NewClient(settings.target, dialing...)
	if err != nil {
		return nil, err
	}
	return &Client{
		Agents:      godotyv1.NewAgentServiceClient(connection),
		Definitions: godotyv1.NewAgentDefinitionServiceClient(connection),
		Billing:     godotyv1.NewBillingServiceClient(connection),
		Admin:       godotyv1.NewAdminServiceClient(connection),
		connection:  connection,
		grace:       settings.grace,
	}, nil
}

// Connection returns the client's connection, for stubs of other services.
func (c *Client) Connection() *grpc.ClientConn { return c.connection }

// Close closes the connection. Cancel running turns first ([Turn.Close]): the server runs them on for a while.
func (c *Client) Close() error { return c.connection.Close() }

// unaryCall gives calls without a deadline the default one, and decodes their errors.
func unaryCall(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, response any, connection *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		if _, limited := ctx.Deadline(); !limited {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		return decode(invoke(ctx, method, request, response, connection, options...))
	}
}

// streamCall decodes the errors of streams.
func streamCall(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, description, connection, method, options...)
	if err != nil {
		return nil, decode(err)
	}
	return decodingStream{stream}, nil
}

type decodingStream struct{ grpc.ClientStream }

func (s decodingStream) RecvMsg(message any) error { return decode(s.ClientStream.RecvMsg(message)) }
