package godoty

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

const (
	uploadPiece   = 256 * 1024      // bytes of one message
	uploadTimeout = 2 * time.Minute // that of the server
)

// UploadAttachment stores an image or a PDF document for messages; it is deleted after a day unless a session names it.
// The content is read to its end, within 2 minutes unless the context has a deadline.
func (c *Client) UploadAttachment(ctx context.Context, content io.Reader) (*godotyv1.Attachment, error) {
	var cancel context.CancelFunc
	if _, limited := ctx.Deadline(); limited {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithTimeout(ctx, uploadTimeout)
	}
	defer cancel()
	stream, err := c.Agents.UploadAttachment(ctx)
	if err != nil {
		return nil, err
	}
	data := make([]byte, uploadPiece)
	for {
		count, err := io.ReadFull(content, data)
		if count > 0 && stream.Send(&godotyv1.UploadAttachmentRequest{Data: data[:count]}) != nil {
			break // CloseAndRecv has the error
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	response, err := stream.CloseAndRecv()
	return response.GetAttachment(), err
}

// UploadAttachmentFile stores an image or a PDF document from a file; see [Client.UploadAttachment].
func (c *Client) UploadAttachmentFile(ctx context.Context, path string) (*godotyv1.Attachment, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return c.UploadAttachment(ctx, file)
}
