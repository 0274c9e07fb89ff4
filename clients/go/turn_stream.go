package godoty

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// leaveTimeout is the time in which a turn that is left must be cancelled.
const leaveTimeout = 5 * time.Second

// turnStream is the stream of one turn of the server, over as many connections as it takes.
type turnStream struct {
	client  *Client
	ctx     context.Context
	request *godotyv1.ConverseRequest
	retries retries

	receive func() (*godotyv1.TurnEvent, error) // nil: no stream is open
	cancel  context.CancelFunc                  // of the stream
	begun   bool

	mutex sync.Mutex // of id, which a cancelled context reads
	id    string

	sequence   int64
	finished   *godotyv1.TurnFinished
	err        error
	reconnects int
}

func newTurnStream(ctx context.Context, client *Client, request *godotyv1.ConverseRequest) *turnStream {
	window := request.GetDisconnectGrace().AsDuration()
	return &turnStream{client: client, ctx: ctx, request: request, retries: retries{window: window}}
}

// next returns the next event that the caller has not seen; io.EOF after the turn's end.
func (s *turnStream) next() (*godotyv1.TurnEvent, error) {
	for s.err == nil && s.finished == nil {
		event, err := s.read()
		isNew := err == nil && s.accept(event)
		switch {
		case s.ctx.Err() != nil && s.finished == nil:
			s.fail(s.ctx.Err())
		case err != nil:
			s.lost(err)
		case isNew:
			return event, nil
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	return nil, io.EOF
}

// leave ends the stream: a turn that has not ended is cancelled, in at most 5 seconds.
func (s *turnStream) leave() {
	ongoing := s.begun && s.finished == nil && !s.failed()
	s.close()
	if s.turnID() == "" || !ongoing || s.request.GetOnDisconnect() == godotyv1.OnDisconnect_ON_DISCONNECT_CONTINUE {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), leaveTimeout)
	defer cancel()
	// If this fails, the server cancels the turn after its disconnect grace.
	_, _ = s.client.Agents.CancelTurn(ctx, &godotyv1.CancelTurnRequest{TurnId: s.turnID()}, grpc.WaitForReady(true))
}

func (s *turnStream) turnID() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.id
}

// read returns the next message, from a stream that it opens if there is none.
func (s *turnStream) read() (*godotyv1.TurnEvent, error) {
	if s.receive == nil {
		if err := s.open(); err != nil {
			return nil, err
		}
	}
	return s.receive()
}

func (s *turnStream) open() error {
	// The caller's context must not end a stream by which the id of its turn is still to come.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	stop := context.AfterFunc(s.ctx, func() {
		if s.turnID() != "" {
			cancel()
		} else {
			time.AfterFunc(leaveTimeout, cancel)
		}
	})
	s.cancel = func() { stop(); cancel() }
	s.begun = true
	var err error
	if s.turnID() == "" {
		s.receive, err = events(s.client.Agents.Converse(ctx, s.request))
	} else {
		request := &godotyv1.ResumeTurnRequest{TurnId: s.turnID(), AfterSequence: s.sequence}
		s.receive, err = events(s.client.Agents.ResumeTurn(ctx, request))
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
func (s *turnStream) accept(event *godotyv1.TurnEvent) bool {
	s.retries.reset()
	if event.GetTurnId() != "" && s.turnID() == "" {
		s.mutex.Lock()
		s.id = event.GetTurnId()
		s.mutex.Unlock()
	}
	if event.GetHeartbeat() != nil {
		return true
	}
	if event.GetSequence() <= s.sequence {
		return false
	}
	s.sequence = event.GetSequence()
	if finished := event.GetTurnFinished(); finished != nil {
		s.finished = finished
	}
	return true
}

// lost waits until the stream can be opened anew, or records the error with which the turn ended.
func (s *turnStream) lost(err error) {
	s.close()
	if errors.Is(err, io.EOF) { // before turn_finished, which only a proxy does
		err = decode(status.Error(codes.Unavailable, "the stream ended before its turn"))
	}
	if !s.retries.again(s.ctx, s.client, err, s.turnID() != "") {
		s.fail(err)
		return
	}
	s.reconnects++
}

func (s *turnStream) fail(err error) { s.err = decode(err) }

// failed reports whether the server has ended the turn with an error.
func (s *turnStream) failed() bool {
	var failure *Error
	return errors.As(s.err, &failure) && failure.Reason != "" && !failure.lostConnection()
}

func (s *turnStream) close() {
	if s.cancel != nil {
		s.cancel()
	}
	s.receive, s.cancel = nil, nil
}
