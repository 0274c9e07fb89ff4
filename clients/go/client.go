// Package godoty connects to a Godoty server. The stubs are in the package godotyv1 beside it.
package godoty

import (
	"context"
	"crypto/tls"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Connect opens a connection to target ("host:port") that sends apiKey with each call. It speaks plain text to
// this machine and TLS to any other.
func Connect(target, apiKey string) (*grpc.ClientConn, error) {
	transport := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	if isLoopback(target) {
		transport = insecure.NewCredentials()
	}
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer(apiKey)))
}

func isLoopback(target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bearer is an API key; it never prints itself.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false for this machine's sake: Connect sees to TLS elsewhere.
func (b bearer) RequireTransportSecurity() bool { return false }

func (b bearer) String() string { return "Bearer ***" }

func (b bearer) GoString() string { return b.String() }
