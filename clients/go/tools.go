package godoty

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

const (
	maximumAnswers     = 16         // of one request
	maximumAnswerBytes = 120 * 1024 // of one request; the server takes 128 KiB
)

// Tool is a tool that this program runs for the model.
type Tool struct {
	// Name is what the model calls it: 1 to 64 of [A-Za-z0-9_-], the first a letter.
	Name string
	// Description says what the tool does, for the model: at most 1,000 printable characters. Empty: the agent's
	// definition declares the tool.
	Description string
	// InputSchema is the JSON Schema of its input, an object, as JSON text. Empty: an object without members.
	InputSchema string
	// Run runs the tool. Its input is a JSON object as the model wrote it: it may not be valid by the schema. The model
	// sees a string as text, a [*godotyv1.ClientToolOutput] as it is, any other value as JSON, and an error by its text,
	// in at most 64 KiB. The context is that of the turn.
	Run func(ctx context.Context, input json.RawMessage) (any, error)
}

// ConverseOption is an option of [Client.Converse].
type ConverseOption func(*answers)

// WithTools lets the model call tools, which run one after the other. A tool of the caller's that is not among them
// is answered with an error, which the model sees.
func WithTools(tools ...Tool) ConverseOption {
	return func(a *answers) { a.tools = append(a.tools, tools...) }
}

// WithApproval answers calls that need approval, before tools run: with [Approve], [ApproveWith] or [Deny]. Nil leaves
// the action open, and so does an error, with which the turn's events then end. Actions for a reviewer are not asked.
func WithApproval(approve func(context.Context, *godotyv1.Action) (*godotyv1.ActionResult, error)) ConverseOption {
	return func(a *answers) { a.approve = approve }
}

// answers are the answers to the actions of a turn.
type answers struct {
	tools   []Tool
	approve func(context.Context, *godotyv1.Action) (*godotyv1.ActionResult, error)

	given map[string]*godotyv1.ActionResult // by action; nil: left open, or sent
}

// declare adds the tools to the request; one with answers has those of the turn that asked.
func (a *answers) declare(request *godotyv1.ConverseRequest) {
	if len(request.GetActionResults()) > 0 {
		return
	}
	for _, tool := range a.tools {
		if tool.Description != "" {
			request.ClientTools = append(request.ClientTools, &godotyv1.ClientTool{
				ToolName: tool.Name, Description: tool.Description, InputSchema: tool.InputSchema,
			})
		}
	}
}

// to returns the answers to actions, as many as one request takes: the others are asked again.
func (a *answers) to(ctx context.Context, actions []*godotyv1.Action) ([]*godotyv1.ActionResult, error) {
	if a.given == nil {
		a.given = map[string]*godotyv1.ActionResult{}
	}
	for _, kind := range []godotyv1.ActionKind{
		godotyv1.ActionKind_ACTION_KIND_APPROVAL, godotyv1.ActionKind_ACTION_KIND_CLIENT_TOOL,
	} {
		for _, action := range actions {
			if _, known := a.given[action.GetActionId()]; known || action.GetKind() != kind {
				continue
			}
			answer, err := a.answer(ctx, action)
			if err != nil {
				return nil, err
			}
			a.given[action.GetActionId()] = answer
		}
	}
	var found []*godotyv1.ActionResult
	size := 0
	for _, action := range actions {
		answer := a.given[action.GetActionId()]
		if answer == nil {
			continue
		}
		size += proto.Size(answer)
		if len(found) == maximumAnswers || len(found) > 0 && size > maximumAnswerBytes {
			break
		}
		found = append(found, answer)
		a.given[action.GetActionId()] = nil
	}
	return found, nil
}

// answer returns the answer to an action; nil: it is left open.
func (a *answers) answer(ctx context.Context, action *godotyv1.Action) (*godotyv1.ActionResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, decode(err)
	}
	approval := action.GetKind() == godotyv1.ActionKind_ACTION_KIND_APPROVAL
	switch {
	case action.GetDecider() == godotyv1.ActionDecider_ACTION_DECIDER_REVIEWER:
		return nil, nil
	case approval && a.approve != nil:
		return a.approve(ctx, action)
	case approval || len(a.tools) == 0:
		return nil, nil
	}
	for _, tool := range a.tools {
		if tool.Name == action.GetName() {
			output, err := tool.Run(ctx, json.RawMessage(action.GetInputJson()))
			if err != nil {
				return Output(action, err), nil
			}
			return Output(action, output), nil
		}
	}
	return Output(action, fmt.Errorf("there is no tool %q here", action.GetName())), nil
}
