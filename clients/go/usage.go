package godoty

import (
	"context"
	"iter"
	"math/big"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// USD returns an amount of US dollars, exactly. Nil: the amount is unset, which means unknown and never 0.
func USD(amount *string) *big.Rat {
	if amount == nil {
		return nil
	}
	value, ok := new(big.Rat).SetString(*amount)
	if !ok {
		return nil
	}
	return value
}

// FormatUSD returns an amount in plain notation, exactly: "0.00042". Of nil, which is not known: "unknown".
func FormatUSD(amount *big.Rat) string {
	if amount == nil {
		return "unknown"
	}
	digits, _ := amount.FloatPrec()
	return amount.FloatString(digits)
}

// CostOf returns the cost of totals in US dollars, exactly. Nil: it is not known, or that of a call is not (yet).
func CostOf(totals *godotyv1.Totals) *big.Rat {
	if totals == nil || totals.GetPendingCalls() > 0 || totals.GetUnresolvedCalls() > 0 {
		return nil
	}
	return USD(totals.CostUsd)
}

// SessionMetrics returns the cost and usage of a session.
func (c *Client) SessionMetrics(ctx context.Context, sessionID string) (*godotyv1.GetSessionMetricsResponse, error) {
	return c.Agents.GetSessionMetrics(ctx, &godotyv1.GetSessionMetricsRequest{SessionId: sessionID})
}

// Usage yields the usage of a time range by groups; without groups, one row. It needs a key of the scope billing.
func (c *Client) Usage(ctx context.Context, start, end time.Time, groups ...godotyv1.UsageGroup,
) iter.Seq2[*godotyv1.UsageRow, error] {
	request := &godotyv1.GetUsageRequest{
		StartTime: timestamppb.New(start), EndTime: timestamppb.New(end), GroupBy: groups,
	}
	return pages(func(token string) ([]*godotyv1.UsageRow, string, error) {
		request.PageToken = token
		page, err := c.Billing.GetUsage(ctx, request)
		return page.GetRows(), page.GetNextPageToken(), err
	})
}

// LedgerEntries yields the ledger's entries of a time range, oldest first. It needs a key of the scope billing.
func (c *Client) LedgerEntries(ctx context.Context, start, end time.Time) iter.Seq2[*godotyv1.LedgerEntry, error] {
	request := &godotyv1.ListLedgerEntriesRequest{StartTime: timestamppb.New(start), EndTime: timestamppb.New(end)}
	return pages(func(token string) ([]*godotyv1.LedgerEntry, string, error) {
		request.PageToken = token
		page, err := c.Billing.ListLedgerEntries(ctx, request)
		return page.GetEntries(), page.GetNextPageToken(), err
	})
}

// Sessions yields the tenant's sessions, most recently used first.
func (c *Client) Sessions(ctx context.Context) iter.Seq2[*godotyv1.Session, error] {
	return pages(func(token string) ([]*godotyv1.Session, string, error) {
		page, err := c.Agents.ListSessions(ctx, &godotyv1.ListSessionsRequest{PageToken: token})
		return page.GetSessions(), page.GetNextPageToken(), err
	})
}

// Messages yields the messages of a session, oldest first. A list shows large ones cut: ReadMessage has all of them.
func (c *Client) Messages(ctx context.Context, sessionID string) iter.Seq2[*godotyv1.Message, error] {
	return pages(func(token string) ([]*godotyv1.Message, string, error) {
		page, err := c.Agents.ListMessages(ctx, &godotyv1.ListMessagesRequest{SessionId: sessionID, PageToken: token})
		return page.GetMessages(), page.GetNextPageToken(), err
	})
}

// pages yields the items of all pages, which are fetched as needed.
func pages[Item any](fetch func(token string) ([]Item, string, error)) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for token := ""; ; {
			items, next, err := fetch(token)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			token = next
		}
	}
}
