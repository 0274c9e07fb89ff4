// Command converse holds a conversation of two turns and compares what it cost with the session's metrics.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/godoty/godoty/clients/go/examples/internal/example"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

func main() { example.Main("converse", run) }

func run(ctx context.Context, agent godotyv1.AgentServiceClient) error {
	sessionID, _, err := say(ctx, agent, "", "Hello from Go.")
	if err != nil {
		return err
	}
	_, totals, err := say(ctx, agent, sessionID, "And once more.")
	if err != nil {
		return err
	}
	metrics, err := agent.GetSessionMetrics(ctx, &godotyv1.GetSessionMetricsRequest{SessionId: sessionID})
	if err != nil {
		return err
	}
	cost, turns := metrics.GetTotals().GetCostUsd(), metrics.GetTotals().GetTurns()
	fmt.Printf("metrics: cost_usd=%s turns=%d\n", cost, turns)
	if cost != totals.GetCostUsd() {
		return fmt.Errorf("the metrics say %s USD, the last turn said %s", cost, totals.GetCostUsd())
	}
	return nil
}

// say runs one turn, prints the answer, the session's id and its totals after the turn.
func say(ctx context.Context, agent godotyv1.AgentServiceClient, sessionID, text string) (string, *godotyv1.Totals, error) {
	stream, err := agent.Converse(ctx, &godotyv1.ConverseRequest{SessionId: sessionID, Text: text})
	if err != nil {
		return "", nil, err
	}
	var totals *godotyv1.Totals
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, err
		}
		switch event := response.GetEvent().(type) {
		case *godotyv1.ConverseResponse_TurnStarted:
			sessionID = event.TurnStarted.GetSessionId()
		case *godotyv1.ConverseResponse_TextDelta:
			fmt.Print(event.TextDelta.GetText())
		case *godotyv1.ConverseResponse_TurnFinished:
			totals = event.TurnFinished.GetSessionTotals()
		}
	}
	if totals == nil {
		return "", nil, errors.New("the stream ended before its turn")
	}
	fmt.Printf("\nsession_totals: cost_usd=%s turns=%d\n", totals.GetCostUsd(), totals.GetTurns())
	return sessionID, totals, nil
}
