package godoty

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	defaultTimeout = 30 * time.Second
	defaultGrace   = 30 * time.Second
	maximumGrace   = 10 * time.Minute
)

// Option is an option of [New].
type Option func(*settings)

type settings struct {
	target    string
	apiKey    string
	transport credentials.TransportCredentials
	timeout   time.Duration
	grace     time.Duration
	dialing   []grpc.DialOption
}

// WithTarget sets the server, "host:port"; by default it is GODOTY_LISTEN.
func WithTarget(target string) Option { return func(s *settings) { s.target = target } }

// WithAPIKey sets the API key; by default it is GODOTY_API_KEY.
func WithAPIKey(apiKey string) Option { return func(s *settings) { s.apiKey = apiKey } }

// WithTLS connects by TLS, also to this machine; nil takes the system's authorities. By default TLS is used to all
// other machines, and to this one if GODOTY_TLS_CA names a PEM file of authorities, which are then the trusted ones.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		s.transport = credentials.NewTLS(config)
	}
}

// WithPlaintext connects without TLS. Anyone between here and the server can then read the API key.
func WithPlaintext() Option { return func(s *settings) { s.transport = insecure.NewCredentials() } }

// WithTimeout sets the deadline of calls whose context has none, streams excepted; by default it is 30 seconds.
func WithTimeout(timeout time.Duration) Option { return func(s *settings) { s.timeout = timeout } }

// WithDisconnectGrace sets how long a turn runs on while the connection is lost, and how long the client tries to
// resume it: at most 10 minutes, by default 30 seconds.
func WithDisconnectGrace(grace time.Duration) Option { return func(s *settings) { s.grace = grace } }

// WithDialOptions adds options of gRPC, such as a dialer or interceptors. They come after the client's own.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dialing = append(s.dialing, options...) }
}

func settingsOf(options []Option) (*settings, error) {
	s := &settings{
		target:  os.Getenv("GODOTY_LISTEN"),
		apiKey:  os.Getenv("GODOTY_API_KEY"),
		timeout: defaultTimeout,
		grace:   defaultGrace,
	}
	for _, option := range options {
		option(s)
	}
	switch {
	case s.target == "":
		return nil, errors.New("godoty: no server: set GODOTY_LISTEN, or use WithTarget")
	case !isSendable(s.apiKey):
		return nil, errors.New("godoty: the API key is empty or has characters that no key has: set GODOTY_API_KEY, or use WithAPIKey")
	case s.timeout <= 0:
		return nil, errors.New("godoty: the timeout must be positive")
	case s.grace < 0 || s.grace > maximumGrace:
		return nil, errors.New("godoty: the disconnect grace must be from 0 to 10 minutes")
	}
	if s.transport == nil {
		transport, err := defaultTransport(s.target)
		if err != nil {
			return nil, err
		}
		s.transport = transport
	}
	return s, nil
}

func defaultTransport(target string) (credentials.TransportCredentials, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := os.Getenv("GODOTY_TLS_CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("godoty: GODOTY_TLS_CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("godoty: GODOTY_TLS_CA: %s has no certificate", file)
		}
	} else if isLoopback(target) {
		return insecure.NewCredentials(), nil
	}
	return credentials.NewTLS(config), nil
}

func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// isSendable reports whether a key can be sent. gRPC refuses others too, but with the key in the error's text.
func isSendable(apiKey string) bool {
	return apiKey != "" && !strings.ContainsFunc(apiKey, func(r rune) bool { return r < '!' || r > '~' })
}

// bearer is an API key; it never prints itself.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false for this machine's sake: the options see to TLS elsewhere.
func (b bearer) RequireTransportSecurity() bool { return false }

func (b bearer) String() string { return "Bearer ***" }

func (b bearer) GoString() string { return b.String() }
