// Package example holds what the examples share: the connection they use, and how they report a failure.
package example

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	godoty "github.com/godoty/godoty/clients/go"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// Example is what an example does once it is connected.
type Example func(ctx context.Context, agent godotyv1.AgentServiceClient) error

// Main runs the example called name against the server at GODOTY_LISTEN. If it fails, the process exits with status 1.
func Main(name string, run Example) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := connected(ctx, os.Getenv("GODOTY_LISTEN"), os.Getenv("GODOTY_API_KEY"), run); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, explain(err))
		os.Exit(1)
	}
}

func connected(ctx context.Context, target, apiKey string, run Example) error {
	if target == "" || apiKey == "" {
		return errors.New("set GODOTY_LISTEN and GODOTY_API_KEY")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	connection, err := godoty.Connect(target, apiKey)
	if err != nil {
		return err
	}
	defer connection.Close()
	return run(ctx, godotyv1.NewAgentServiceClient(connection))
}

// explain adds the reason that Godoty gave, one of godotyv1.ErrorReason.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "godoty.app" {
			return fmt.Sprintf("%s: %v", info.GetReason(), err)
		}
	}
	return err.Error()
}
