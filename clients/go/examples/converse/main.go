// Command converse holds a conversation of two turns and compares what it cost with the session's metrics.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	godoty "github.com/godoty/godoty/clients/go"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("GODOTY_LISTEN"), os.Getenv("GODOTY_API_KEY")); err != nil {
		fmt.Fprintln(os.Stderr, "converse:", explain(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, target, apiKey string) error {
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
	agent := godotyv1.NewAgentServiceClient(connection)

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

// say runs one turn, prints the answer and tells the session's id and its totals after the turn.
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

// explain adds the reason that Godoty gave, one of godotyv1.ErrorReason.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "godoty.app" {
			return fmt.Sprintf("%s: %v", info.GetReason(), err)
		}
	}
	return err.Error()
}
