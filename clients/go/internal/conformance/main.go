// Command conformance runs the commands of the tests in tests/clients/polyglot: one JSON object a line, with lines of
// JSON in answer, the last of them with "done" or "error".
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	godoty "github.com/godoty/godoty/clients/go"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

type command struct {
	Do        string   `json:"do"`
	Target    string   `json:"target"`
	APIKey    string   `json:"api_key"`
	SessionID string   `json:"session_id"`
	Text      string   `json:"text"`
	MaxCost   *string  `json:"max_cost_usd"`
	LeaveAt   string   `json:"leave_at"`   // leave once the text contains it
	TimeoutMS int      `json:"timeout_ms"` // of the turn
	GraceMS   int      `json:"grace_ms"`
	Continue  bool     `json:"continue"` // ON_DISCONNECT_CONTINUE
	Agent     string   `json:"agent"`
	Tools     []tool   `json:"tools"`
	Approval  *answer  `json:"approval"` // to each approval; unset: there is no function
	Answers   []answer `json:"answers"`  // in place of a text
	Cursor    string   `json:"cursor"`
	StopAfter int      `json:"stop_after"` // entries
	Path      string   `json:"path"`       // of a file
	Data      []byte   `json:"data"`       // in base64
}

type object = map[string]any

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var given command
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			panic(err)
		}
		done, err := run(given)
		if err != nil {
			print(object{"error": described(err)})
		} else {
			print(object{"done": done})
		}
	}
}

func run(given command) (object, error) {
	var options []godoty.Option
	if given.Target != "" {
		options = append(options, godoty.WithTarget(given.Target))
	}
	if given.APIKey != "" {
		options = append(options, godoty.WithAPIKey(given.APIKey))
	}
	if given.GraceMS > 0 {
		options = append(options, godoty.WithDisconnectGrace(time.Duration(given.GraceMS)*time.Millisecond))
	}
	client, err := godoty.New(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx := context.Background()
	switch given.Do {
	case "converse":
		return converse(ctx, client, given)
	case "metrics":
		metrics, err := client.SessionMetrics(ctx, given.SessionID)
		if err != nil {
			return nil, err
		}
		return totalsOf(metrics.GetTotals()), nil
	case "usage":
		return usage(ctx, client)
	case "export":
		return export(ctx, client, given)
	case "upload":
		return upload(ctx, client, given)
	}
	return nil, fmt.Errorf("unknown command %q", given.Do)
}

func converse(ctx context.Context, client *godoty.Client, given command) (object, error) {
	if given.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(given.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	request := &godotyv1.ConverseRequest{SessionId: given.SessionID, Text: given.Text, Agent: given.Agent}
	for _, each := range given.Answers {
		request.ActionResults = append(request.ActionResults, each.to(&godotyv1.Action{ActionId: each.ActionID}))
	}
	if given.MaxCost != nil {
		request.Limits = &godotyv1.TurnLimits{MaxCostUsd: given.MaxCost}
	}
	if given.Continue {
		request.OnDisconnect = godotyv1.OnDisconnect_ON_DISCONNECT_CONTINUE
	}
	turn := client.Converse(ctx, request, optionsOf(given)...)
	for event, err := range turn.Events() {
		if err != nil {
			return nil, err
		}
		show(event)
		if given.LeaveAt != "" && strings.Contains(turn.Text(), given.LeaveAt) {
			break
		}
	}
	done := object{
		"turn_id": turn.ID(), "session_id": turn.SessionID(), "request_id": turn.RequestID(), "text": turn.Text(),
		"reconnects": turn.Reconnects(), "stop_reason": nil, "cost_usd": plain(turn.Cost()), "actions": actionsOf(turn),
	}
	if finished := turn.Finished(); finished != nil {
		done["stop_reason"] = finished.GetStopReason().String()
		done["totals"] = totalsOf(finished.GetTurnTotals())
	}
	return done, nil
}

// plain returns an amount in plain notation; nil if it is not known.
func plain(amount *big.Rat) any {
	if amount == nil {
		return nil
	}
	return godoty.FormatUSD(amount)
}

func show(event *godotyv1.TurnEvent) {
	line := object{"sequence": event.GetSequence()}
	switch kind := event.GetEvent().(type) {
	case *godotyv1.TurnEvent_Heartbeat, nil:
		return
	case *godotyv1.TurnEvent_TextDelta:
		line["event"], line["text"] = "text_delta", kind.TextDelta.GetText()
	case *godotyv1.TurnEvent_TurnStarted:
		line["event"] = "turn_started"
	case *godotyv1.TurnEvent_ToolCallStarted:
		line["event"], line["name"] = "tool_call_started", kind.ToolCallStarted.GetName()
	case *godotyv1.TurnEvent_ToolCallFinished:
		line["event"] = "tool_call_finished"
	case *godotyv1.TurnEvent_ModelCallFinished:
		line["event"], line["cost_usd"] = "model_call_finished", kind.ModelCallFinished.GetCall().GetCostUsd()
	case *godotyv1.TurnEvent_TurnFinished:
		line["event"] = "turn_finished"
	default:
		line["event"] = "other"
	}
	print(line)
}

func usage(ctx context.Context, client *godoty.Client) (object, error) {
	now := time.Now()
	rows := []object{}
	for row, err := range client.Usage(ctx, now.Add(-24*time.Hour), now.Add(time.Hour), godotyv1.UsageGroup_USAGE_GROUP_MODEL) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, object{"model": row.GetKeys()[0].GetModel(), "totals": totalsOf(row.GetTotals())})
	}
	return object{"rows": rows}, nil
}

func totalsOf(totals *godotyv1.Totals) object {
	return object{
		"cost_usd":      plain(godoty.CostOf(totals)),
		"turns":         totals.GetTurns(),
		"model_calls":   totals.GetModelCalls(),
		"input_tokens":  totals.GetUsage().GetInputTokens(),
		"output_tokens": totals.GetUsage().GetOutputTokens(),
	}
}

func described(err error) object {
	var failure *godoty.Error
	if !errors.As(err, &failure) {
		return object{"text": err.Error()}
	}
	return object{
		"text": failure.Error(), "code": int(failure.Code), "reason": failure.Reason, "quotas": failure.Quotas,
		"retry_delay": failure.RetryDelay.Seconds(), "metadata": failure.Metadata, "request_id": failure.RequestID,
	}
}

func print(line object) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}
