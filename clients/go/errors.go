package godoty

import (
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

const (
	errorDomain  = "godoty.app"
	reasonPrefix = "ERROR_REASON_"
)

// Error is the error of a call. Its gRPC status is that of [status.FromError], too.
type Error struct {
	// Code is the status.
	Code codes.Code
	// Message is the text of the server or of gRPC.
	Message string
	// Reason is the name of a [godotyv1.ErrorReason] without its prefix, such as "SESSION_BUSY"; also one that this
	// version does not know. Empty: the error is gRPC's own, such as that of an unreachable server.
	Reason string
	// Metadata is what errors.proto documents for the reason.
	Metadata map[string]string
	// RetryDelay is the time to wait before a retry. 0: the server gave none.
	RetryDelay time.Duration
	// Fields are the invalid fields of the request, each with its constraint.
	Fields []FieldViolation
	// Quotas are the limits that were reached, such as "budget/day".
	Quotas []string
	// RequestID names the call in the server's log.
	RequestID string

	status *status.Status
	cause  error
}

// FieldViolation is an invalid field of a request.
type FieldViolation struct{ Field, Description string }

// Error returns the reason, or the status if there is none, and the message.
func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s: %s: %s", e.Code, e.Reason, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the error as gRPC returned it, or that of the caller's context.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus returns the error as gRPC's status.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// HasReason reports whether err is an error of Godoty with the reason.
func HasReason(err error, reason godotyv1.ErrorReason) bool {
	var found *Error
	return errors.As(err, &found) && found.Reason != "" && reasonPrefix+found.Reason == reason.String()
}

// decode returns the error of a call as an [*Error]; the end of a stream is no error of a call.
func decode(err error) error {
	var decoded *Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &decoded) {
		return err
	}
	found, known := status.FromError(err)
	if !known {
		found = status.FromContextError(err)
	}
	decoded = &Error{Code: found.Code(), Message: found.Message(), status: found, cause: err}
	for _, detail := range found.Details() {
		decoded.add(detail)
	}
	return decoded
}

func (e *Error) add(detail any) {
	switch detail := detail.(type) {
	case *errdetails.ErrorInfo:
		if detail.GetDomain() == errorDomain {
			e.Reason, e.Metadata = detail.GetReason(), detail.GetMetadata()
		}
	case *errdetails.RetryInfo:
		e.RetryDelay = detail.GetRetryDelay().AsDuration()
	case *errdetails.RequestInfo:
		e.RequestID = detail.GetRequestId()
	case *errdetails.BadRequest:
		for _, each := range detail.GetFieldViolations() {
			e.Fields = append(e.Fields, FieldViolation{each.GetField(), each.GetDescription()})
		}
	case *errdetails.QuotaFailure:
		for _, each := range detail.GetViolations() {
			e.Quotas = append(e.Quotas, each.GetSubject())
		}
	}
}

// lostConnection reports whether an error of a turn's stream says nothing of the turn: the connection broke, or the
// server cannot be reached or read now. All errors of Godoty have a reason; errors of networks and proxies have none,
// and the client sets no deadline of a stream.
func (e *Error) lostConnection() bool {
	switch e.Reason {
	case "":
		switch e.Code {
		case codes.Unavailable, codes.Internal, codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
			return true
		}
		return false
	case "SHUTTING_DOWN", "STORAGE_UNAVAILABLE":
		return true
	}
	return false
}
