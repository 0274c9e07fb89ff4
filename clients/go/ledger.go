package godoty

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// LedgerExport is an export of the ledger. If the connection is lost, it goes on after the last entries that arrived: no
// entry comes twice, and none is missing. It is not safe for concurrent use.
type LedgerExport struct {
	client  *Client
	ctx     context.Context
	request *godotyv1.ExportLedgerRequest
	retries retries
	cursor  string
	asOf    time.Time
}

// ExportLedger returns an export of all ledger entries of a time range; with a cursor in the request, it goes on there.
// It needs a key of the scope billing.
func (c *Client) ExportLedger(ctx context.Context, request *godotyv1.ExportLedgerRequest) *LedgerExport {
	request = proto.CloneOf(request)
	return &LedgerExport{
		client: c, ctx: ctx, request: request, retries: retries{window: c.grace}, cursor: request.GetCursor(),
	}
}

// Entries yields the entries, oldest first, or an error at the end.
func (e *LedgerExport) Entries() iter.Seq2[*godotyv1.LedgerEntry, error] {
	return func(yield func(*godotyv1.LedgerEntry, error) bool) {
		for {
			err := e.read(yield)
			if err == nil {
				return
			}
			if e.ctx.Err() != nil || !e.retries.again(e.ctx, e.client, err, e.cursor != "") {
				yield(nil, err)
				return
			}
		}
	}
}

// Cursor returns the position from which a later export of the same range goes on, on any server: after the entries of
// the last response that was read whole. Empty: the beginning.
func (e *LedgerExport) Cursor() string { return e.cursor }

// AsOf returns the time by which the export's entries were inserted. Zero: no response has arrived.
func (e *LedgerExport) AsOf() time.Time { return e.asOf }

// read yields the entries of one stream; nil: the export has ended, or was left.
func (e *LedgerExport) read(yield func(*godotyv1.LedgerEntry, error) bool) error {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	e.request.Cursor = e.cursor
	stream, err := e.client.Billing.ExportLedger(ctx, e.request)
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e.retries.reset()
		if response.GetAsOf() != nil {
			e.asOf = response.GetAsOf().AsTime()
		}
		for _, entry := range response.GetEntries() {
			if !yield(entry, nil) {
				return nil
			}
		}
		e.cursor = response.GetCursor()
	}
}
