// Command converse holds a conversation of two turns and compares what it cost with the session's metrics.
package main

import (
	"context"
	"fmt"

	godoty "github.com/godoty/godoty/clients/go"
	"github.com/godoty/godoty/clients/go/examples/internal/example"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

func main() { example.Main("converse", run) }

func run(ctx context.Context, client *godoty.Client) error {
	first, err := say(ctx, client, "", "Hello from Go.")
	if err != nil {
		return err
	}
	second, err := say(ctx, client, first.SessionID(), "And once more.")
	if err != nil {
		return err
	}
	metrics, err := client.SessionMetrics(ctx, first.SessionID())
	if err != nil {
		return err
	}
	cost, total := metrics.GetTotals().GetCostUsd(), second.Finished().GetSessionTotals().GetCostUsd()
	fmt.Printf("metrics: cost_usd=%s turns=%d\n", cost, metrics.GetTotals().GetTurns())
	if cost != total {
		return fmt.Errorf("the metrics say %s USD, the last turn said %s", cost, total)
	}
	return nil
}

// say runs one turn; it prints the answer and the session's totals after the turn.
func say(ctx context.Context, client *godoty.Client, sessionID, text string) (*godoty.Turn, error) {
	turn := client.Converse(ctx, &godotyv1.ConverseRequest{SessionId: sessionID, Text: text})
	for event, err := range turn.Events() {
		if err != nil {
			return nil, err
		}
		fmt.Print(event.GetTextDelta().GetText())
	}
	totals := turn.Finished().GetSessionTotals()
	fmt.Printf("\nsession_totals: cost_usd=%s turns=%d\n", totals.GetCostUsd(), totals.GetTurns())
	return turn, nil
}
