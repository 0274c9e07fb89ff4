package godoty

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"math/big"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// leaveTimeout is the time in which a turn that is left must be cancelled.
const leaveTimeout = 5 * time.Second

// Turn is a turn of a conversation: the events of its answer, and what is known of it. It is not safe for concurrent
// use.
//
// If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event
// comes twice, and none is missing. If the turn is left before its end, it is cancelled, unless its request says
// ON_DISCONNECT_CONTINUE.
type Turn struct {
	client  *Client
	ctx     context.Context
	request *godotyv1.ConverseRequest
	retries retries

	stream func() (*godotyv1.TurnEvent, error) // nil: none is open
	cancel context.CancelFunc                  // of the stream
	left   bool
	begun  bool

	mutex sync.Mutex // of id, which a cancelled context reads
	id    string

	sequence   int64
	sessionID  string
	text       strings.Builder
	finished   *godotyv1.TurnFinished
	err        error
	reconnects int
}

// Converse returns a turn, which begins when its events are read. A request without an id gets a random one, so that a
// retry never charges twice, and one without a disconnect grace the client's. The context's end cancels the turn.
//
//	turn := client.Converse(ctx, &godotyv1.ConverseRequest{Text: "What is 17 * 23?"})
//	for event, err := range turn.Events() { … }
func (c *Client) Converse(ctx context.Context, request *godotyv1.ConverseRequest) *Turn {
	request = proto.CloneOf(request)
	if request.GetRequestId() == "" {
		request.RequestId = rand.Text()
	}
	if request.GetDisconnectGrace() == nil {
		request.DisconnectGrace = durationpb.New(c.grace)
	}
	return &Turn{
		client:  c,
		ctx:     ctx,
		request: request,
		retries: retries{window: request.GetDisconnectGrace().AsDuration()},
	}
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
	return t.finished, t.err
}

// Close leaves the turn: if it has not ended, it is cancelled, in at most 5 seconds.
func (t *Turn) Close() {
	if t.left {
		return
	}
	t.left = true
	ongoing := t.begun && t.finished == nil && !t.failed()
	t.closeStream()
	if t.ID() == "" || !ongoing || t.request.GetOnDisconnect() == godotyv1.OnDisconnect_ON_DISCONNECT_CONTINUE {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), leaveTimeout)
	defer cancel()
	// If this fails, the server cancels the turn after its disconnect grace.
	_, _ = t.client.Agents.CancelTurn(ctx, &godotyv1.CancelTurnRequest{TurnId: t.ID()}, grpc.WaitForReady(true))
}

// ID returns the id of the turn. Empty: no event has arrived.
func (t *Turn) ID() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.id
}

// SessionID returns the session of the turn. Empty: the turn has not begun, and its request named none.
func (t *Turn) SessionID() string {
	if t.sessionID == "" {
		return t.request.GetSessionId()
	}
	return t.sessionID
}

// RequestID returns the request id of the turn.
func (t *Turn) RequestID() string { return t.request.GetRequestId() }

// Text returns the text of the answer so far.
func (t *Turn) Text() string { return t.text.String() }

// Finished returns the turn's end, with its stop reason and totals. Nil: it has not ended, or ended with an error.
func (t *Turn) Finished() *godotyv1.TurnFinished { return t.finished }

// Cost returns the cost of the turn in US dollars, exactly. Nil: it is not known.
func (t *Turn) Cost() *big.Rat {
	return CostOf(t.finished.GetTurnTotals())
}

// Reconnects returns how often the stream was opened anew.
func (t *Turn) Reconnects() int { return t.reconnects }

func (t *Turn) next() (*godotyv1.TurnEvent, error) {
	for t.err == nil && t.finished == nil && !t.left {
		event, err := t.receive()
		isNew := err == nil && t.accept(event)
		switch {
		case t.ctx.Err() != nil && t.finished == nil:
			t.fail(t.ctx.Err())
		case err != nil:
			t.lost(err)
		case isNew:
			return event, nil
		}
	}
	if t.err != nil {
		return nil, t.err
	}
	return nil, io.EOF
}

// receive returns the next message, from a stream that it opens if there is none.
func (t *Turn) receive() (*godotyv1.TurnEvent, error) {
	if t.stream == nil {
		if err := t.open(); err != nil {
			return nil, err
		}
	}
	return t.stream()
}

func (t *Turn) open() error {
	// The caller's context must not end a stream by which the id of its turn is still to come.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.ctx))
	stop := context.AfterFunc(t.ctx, func() {
		if t.ID() != "" {
			cancel()
		} else {
			time.AfterFunc(leaveTimeout, cancel)
		}
	})
	t.cancel = func() { stop(); cancel() }
	t.begun = true
	var err error
	if t.ID() == "" {
		t.stream, err = events(t.client.Agents.Converse(ctx, t.request))
	} else {
		request := &godotyv1.ResumeTurnRequest{TurnId: t.ID(), AfterSequence: t.sequence}
		t.stream, err = events(t.client.Agents.ResumeTurn(ctx, request))
	}
	return err
}

// events returns a function that receives the events of Converse or ResumeTurn.
func events[Response interface{ GetEvent() *godotyv1.TurnEvent }](
	stream interface{ Recv() (Response, error) }, err error,
) (func() (*godotyv1.TurnEvent, error), error) {
	if err != nil {
		return nil, err
	}
	return func() (*godotyv1.TurnEvent, error) {
		response, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		return response.GetEvent(), nil
	}, nil
}

// accept records an event; it reports false for one that the caller has seen.
func (t *Turn) accept(event *godotyv1.TurnEvent) bool {
	t.retries.reset()
	if event.GetTurnId() != "" && t.ID() == "" {
		t.mutex.Lock()
		t.id = event.GetTurnId()
		t.mutex.Unlock()
	}
	if event.GetHeartbeat() != nil {
		return true
	}
	if event.GetSequence() <= t.sequence {
		return false
	}
	t.sequence = event.GetSequence()
	switch event := event.GetEvent().(type) {
	case *godotyv1.TurnEvent_TurnStarted:
		t.sessionID = event.TurnStarted.GetSessionId()
	case *godotyv1.TurnEvent_TextDelta:
		t.text.WriteString(event.TextDelta.GetText())
	case *godotyv1.TurnEvent_TurnFinished:
		t.finished = event.TurnFinished
	}
	return true
}

// lost waits until the stream can be opened anew, or records the error with which the turn ended.
func (t *Turn) lost(err error) {
	t.closeStream()
	if errors.Is(err, io.EOF) { // before turn_finished, which only a proxy does
		err = decode(status.Error(codes.Unavailable, "the stream ended before its turn"))
	}
	var failure *Error
	if !errors.As(decode(err), &failure) || !failure.lostConnection() || !t.retries.wait(t.ctx, t.ID() != "", failure.RetryDelay) {
		t.fail(err)
		return
	}
	t.reconnects++
	t.client.connection.ResetConnectBackoff()
}

func (t *Turn) fail(err error) { t.err = decode(err) }

// failed reports whether the server has ended the turn with an error.
func (t *Turn) failed() bool {
	var failure *Error
	return errors.As(t.err, &failure) && failure.Reason != "" && !failure.lostConnection()
}

func (t *Turn) closeStream() {
	if t.cancel != nil {
		t.cancel()
	}
	t.stream, t.cancel = nil, nil
}
