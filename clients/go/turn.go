package godoty

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"math/big"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// Turn is a turn of a conversation: the events of its answer, and what is known of it. It is not safe for concurrent
// use.
//
// If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event
// comes twice, and none is missing. If the turn is left before its end, it is cancelled, unless its request says
// ON_DISCONNECT_CONTINUE.
//
// With [WithTools] or [WithApproval], a turn of the server that ends with STOP_REASON_ACTION_REQUIRED is followed by
// another one, with the answers. All of them are one Turn: its events are those of each in order, with a turn_started,
// a turn_finished and sequences of its own; text and cost are those of all together.
type Turn struct {
	client  *Client
	ctx     context.Context
	request *godotyv1.ConverseRequest
	answers answers

	stream  *turnStream // of the last turn of the server
	left    bool
	err     error
	actions []*godotyv1.Action // those for which that turn has asked

	sessionID  string
	text       strings.Builder
	cost       big.Rat // of the turns before that one
	unknown    bool    // the cost of one of them is
	reconnects int     // of the turns before that one
}

// Converse returns a turn, which begins when its events are read. A request without an id gets a random one, so that a
// retry never charges twice, and one without a disconnect grace the client's. The context's end cancels the turn.
//
//	turn := client.Converse(ctx, &godotyv1.ConverseRequest{Text: "What is 17 * 23?"})
//	for event, err := range turn.Events() { … }
func (c *Client) Converse(ctx context.Context, request *godotyv1.ConverseRequest, options ...ConverseOption) *Turn {
	request = proto.CloneOf(request)
	if request.GetRequestId() == "" {
		request.RequestId = rand.Text()
	}
	if request.GetDisconnectGrace() == nil {
		request.DisconnectGrace = durationpb.New(c.grace)
	}
	turn := &Turn{client: c, ctx: ctx, request: request, sessionID: request.GetSessionId()}
	for _, option := range options {
		option(&turn.answers)
	}
	turn.answers.declare(request)
	turn.stream = newTurnStream(ctx, c, request)
	return turn
}

// Events yields the events of the turn, from turn_started to turn_finished, or an error at the end. A heartbeat may
// occur at any time. An event that this version does not know is nil in its Event: skip it. Leaving the loop early
// cancels the turn. The events can be read once.
func (t *Turn) Events() iter.Seq2[*godotyv1.TurnEvent, error] {
	return func(yield func(*godotyv1.TurnEvent, error) bool) {
		defer t.Close()
		for {
			event, err := t.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Wait reads the turn to its end.
func (t *Turn) Wait() (*godotyv1.TurnFinished, error) {
	for _, err := range t.Events() {
		if err != nil {
			return nil, err
		}
	}
	return t.Finished(), t.err
}

// Close leaves the turn: if it has not ended, it is cancelled, in at most 5 seconds.
func (t *Turn) Close() {
	if !t.left {
		t.left = true
		t.stream.leave()
	}
}

// ID returns the id of the turn; of several, that of the last. Empty: no event has arrived.
func (t *Turn) ID() string { return t.stream.turnID() }

// SessionID returns the session of the turn. Empty: the turn has not begun, and its request named none.
func (t *Turn) SessionID() string { return t.sessionID }

// RequestID returns the request id of the turn; of several, that of the first.
func (t *Turn) RequestID() string { return t.request.GetRequestId() }

// Text returns the text of the answer so far.
func (t *Turn) Text() string { return t.text.String() }

// Finished returns the turn's end, with its stop reason and totals; of several, that of the last. Nil: it has not
// ended, or ended with an error.
func (t *Turn) Finished() *godotyv1.TurnFinished { return t.stream.finished }

// Cost returns the cost of the turn in US dollars, exactly. Nil: it has not ended, or the cost of a call is not known.
func (t *Turn) Cost() *big.Rat {
	last := CostOf(t.Finished().GetTurnTotals())
	if t.unknown || last == nil {
		return nil
	}
	return last.Add(last, &t.cost)
}

// Actions returns the actions for which the turn waits, with their inputs, once it has ended with
// STOP_REASON_ACTION_REQUIRED. Answer them in another turn of the session, by [godotyv1.ConverseRequest.ActionResults]
// ([Approve], [Deny], [Output]), or by [Client.Agents].DecideAction.
func (t *Turn) Actions() []*godotyv1.Action {
	var open []*godotyv1.Action
	for _, each := range t.Finished().GetActions() {
		for _, asked := range t.actions {
			if asked.GetActionId() == each.GetActionId() {
				open = append(open, asked)
			}
		}
	}
	return open
}

// Reconnects returns how often a stream was opened anew.
func (t *Turn) Reconnects() int { return t.reconnects + t.stream.reconnects }

func (t *Turn) next() (*godotyv1.TurnEvent, error) {
	for !t.left && t.err == nil {
		event, err := t.stream.next()
		if err == nil {
			t.record(event)
			return event, nil
		}
		if !errors.Is(err, io.EOF) {
			t.err = err
		} else if !t.follow() {
			return nil, io.EOF
		}
	}
	if t.err != nil {
		return nil, t.err
	}
	return nil, io.EOF
}

func (t *Turn) record(event *godotyv1.TurnEvent) {
	switch event := event.GetEvent().(type) {
	case *godotyv1.TurnEvent_TurnStarted:
		t.sessionID = event.TurnStarted.GetSessionId()
	case *godotyv1.TurnEvent_TextDelta:
		t.text.WriteString(event.TextDelta.GetText())
	case *godotyv1.TurnEvent_ActionRequired:
		t.actions = append(t.actions, event.ActionRequired)
	}
}

// follow lets the turn with the answers to the actions follow; it reports false if there is none.
func (t *Turn) follow() bool {
	results, err := t.answers.to(t.ctx, t.Actions())
	if err == nil && len(results) > 0 {
		err = decode(t.ctx.Err())
	}
	if err != nil || len(results) == 0 {
		t.err = err
		return err != nil
	}
	cost := CostOf(t.Finished().GetTurnTotals())
	if cost == nil {
		t.unknown = true
	} else {
		t.cost.Add(&t.cost, cost)
	}
	t.reconnects += t.stream.reconnects
	t.actions = nil
	t.stream = newTurnStream(t.ctx, t.client, &godotyv1.ConverseRequest{ // the server has the rest of the first one
		SessionId:       t.sessionID,
		RequestId:       rand.Text(),
		ActionResults:   results,
		User:            t.request.GetUser(),
		OnBusy:          t.request.GetOnBusy(),
		OnDisconnect:    t.request.GetOnDisconnect(),
		DisconnectGrace: t.request.GetDisconnectGrace(),
	})
	return true
}
