// Package example holds what the examples share: the client they use, and how they report a failure.
package example

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	godoty "github.com/godoty/godoty/clients/go"
)

// Example is what an example does with its client.
type Example func(ctx context.Context, client *godoty.Client) error

// Main runs the example called name against the server at GODOTY_LISTEN. If it fails, the process exits with status 1.
func Main(name string, run Example) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := connected(ctx, run); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func connected(ctx context.Context, run Example) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := godoty.New()
	if err != nil {
		return err
	}
	defer client.Close()
	return run(ctx, client)
}
