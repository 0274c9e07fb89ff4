package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	godoty "github.com/godoty/godoty/clients/go"
	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// tool is a tool of the program, which always does the same.
type tool struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	InputSchema string `json:"input_schema"`
	Returns     any    `json:"returns"`
	Fails       string `json:"fails"`    // with this text
	SleepMS     int    `json:"sleep_ms"` // before it ends
}

// answer is the answer to an action: one of its members.
type answer struct {
	ActionID string `json:"action_id"`
	Approve  bool   `json:"approve"`
	Input    string `json:"input"` // the approved one, as JSON
	Deny     string `json:"deny"`
	Output   any    `json:"output"`
	Fail     string `json:"fail"` // of the approval's function
}

func (a answer) to(action *godotyv1.Action) *godotyv1.ActionResult {
	switch {
	case a.Approve:
		return godoty.Approve(action)
	case a.Input != "":
		return godoty.ApproveWith(action, a.Input)
	case a.Deny != "":
		return godoty.Deny(action, a.Deny)
	case a.Output != nil:
		return godoty.Output(action, a.Output)
	}
	return nil
}

func optionsOf(given command) []godoty.ConverseOption {
	var options []godoty.ConverseOption
	for _, each := range given.Tools {
		options = append(options, godoty.WithTools(godoty.Tool{
			Name: each.Name, Description: each.Description, InputSchema: each.InputSchema, Run: each.run,
		}))
	}
	if given.Approval != nil {
		options = append(options, godoty.WithApproval(
			func(_ context.Context, action *godotyv1.Action) (*godotyv1.ActionResult, error) {
				print(object{"event": "approval_asked", "name": action.GetName(), "reason": action.GetReason(),
					"input": json.RawMessage(action.GetInputJson())})
				if given.Approval.Fail != "" {
					return nil, errors.New(given.Approval.Fail)
				}
				return given.Approval.to(action), nil
			}))
	}
	return options
}

func (t tool) run(ctx context.Context, input json.RawMessage) (any, error) {
	print(object{"event": "tool_ran", "name": t.Name, "input": input})
	select {
	case <-time.After(time.Duration(t.SleepMS) * time.Millisecond):
	case <-ctx.Done():
	}
	if t.Fails != "" {
		return nil, errors.New(t.Fails)
	}
	return t.Returns, nil
}

func actionsOf(turn *godoty.Turn) []object {
	found := []object{}
	for _, each := range turn.Actions() {
		found = append(found, object{
			"action_id": each.GetActionId(), "kind": each.GetKind().String(), "name": each.GetName(),
			"input_json": each.GetInputJson(),
		})
	}
	return found
}

func export(ctx context.Context, client *godoty.Client, given command) (object, error) {
	found := client.ExportLedger(ctx, &godotyv1.ExportLedgerRequest{Cursor: given.Cursor})
	entries := []string{}
	for entry, err := range found.Entries() {
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry.GetCall().GetCallId())
		if len(entries) == given.StopAfter {
			break
		}
	}
	return object{"entries": entries, "cursor": found.Cursor(), "as_of": found.AsOf().UnixMilli()}, nil
}

func upload(ctx context.Context, client *godoty.Client, given command) (object, error) {
	var attachment *godotyv1.Attachment
	var err error
	if given.Path != "" {
		attachment, err = client.UploadAttachmentFile(ctx, given.Path)
	} else {
		attachment, err = client.UploadAttachment(ctx, bytes.NewReader(given.Data))
	}
	if err != nil {
		return nil, err
	}
	return object{
		"attachment_id": attachment.GetAttachmentId(), "media_type": attachment.GetMediaType(),
		"size_bytes": attachment.GetSizeBytes(),
	}, nil
}
