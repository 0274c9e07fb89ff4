package godoty

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = 2 * time.Second
	// A turn of which nothing was heard is tried for about two seconds: its server may not exist.
	attemptsToBegin = 6
)

// retries decides whether and when a lost stream is opened anew.
type retries struct {
	window time.Duration // from the loss of a stream that has begun

	attempt int       // since the last message
	lost    time.Time // when the first of them began
}

// reset is called with each message: the connection works.
func (r *retries) reset() { r.attempt = 0 }

// again waits until a stream that ended with an error can be opened anew; it reports false if it is not to be.
func (r *retries) again(ctx context.Context, client *Client, err error, begun bool) bool {
	var failure *Error
	if !errors.As(decode(err), &failure) || !failure.lostConnection() || !r.wait(ctx, begun, failure.RetryDelay) {
		return false
	}
	client.connection.ResetConnectBackoff()
	return true
}

// wait waits until the next attempt; it reports false if there is none. The first one is made at once.
func (r *retries) wait(ctx context.Context, begun bool, delay time.Duration) bool {
	if r.attempt == 0 {
		r.lost = time.Now()
	}
	if r.attempt > 0 {
		backoff := min(firstDelay<<min(r.attempt-1, 10), longestDelay)
		delay = max(delay, backoff/2+rand.N(backoff/2))
	}
	r.attempt++
	if begun && time.Since(r.lost)+delay > r.window || !begun && r.attempt >= attemptsToBegin {
		return false
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}
