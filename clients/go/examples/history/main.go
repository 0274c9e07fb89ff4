// Command history prints the size of each message of a session. It reads whole the messages that a list shows cut.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	godoty "github.com/godoty/godoty/clients/go"
	"github.com/godoty/godoty/clients/go/examples/internal/example"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

func main() { example.Main("history", run) }

func run(ctx context.Context, client *godoty.Client) error {
	sessionID := os.Getenv("GODOTY_SESSION")
	if sessionID == "" {
		return errors.New("set GODOTY_SESSION")
	}
	count := 0
	for message, err := range client.Messages(ctx, sessionID) {
		if err != nil {
			return err
		}
		content, err := contentOf(ctx, client.Agents, sessionID, message)
		if err != nil {
			return err
		}
		show(message, content)
		count++
	}
	fmt.Printf("messages: %d\n", count)
	return nil
}

// contentOf returns the content of a listed message. If a block of it is cut, the content comes from ReadMessage,
// where a block may be in several pieces.
func contentOf(ctx context.Context, agent godotyv1.AgentServiceClient, sessionID string, message *godotyv1.Message) ([]*godotyv1.ContentBlock, error) {
	if !slices.ContainsFunc(message.GetContent(), (*godotyv1.ContentBlock).GetTruncated) {
		return message.GetContent(), nil
	}
	stream, err := agent.ReadMessage(ctx, &godotyv1.ReadMessageRequest{SessionId: sessionID, Number: message.GetNumber()})
	if err != nil {
		return nil, err
	}
	var pieces []*godotyv1.ContentBlock
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return pieces, nil
		}
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, response.GetContent())
	}
}

func show(message *godotyv1.Message, content []*godotyv1.ContentBlock) {
	role := strings.ToLower(strings.TrimPrefix(message.GetRole().String(), "ROLE_"))
	bytes := 0
	for _, block := range content {
		bytes += len(textOf(block))
	}
	fmt.Printf("message: number=%d role=%s bytes=%d\n", message.GetNumber(), role, bytes)
}

func textOf(block *godotyv1.ContentBlock) string {
	switch block := block.GetBlock().(type) {
	case *godotyv1.ContentBlock_Text:
		return block.Text
	case *godotyv1.ContentBlock_Reasoning:
		return block.Reasoning
	case *godotyv1.ContentBlock_ToolUse:
		return block.ToolUse.GetInputJson()
	case *godotyv1.ContentBlock_ToolResult:
		return block.ToolResult.GetOutput()
	}
	return ""
}
