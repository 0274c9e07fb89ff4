package godoty

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

const (
	maximumText  = 64 * 1024 // bytes of an output
	maximumJSON  = 32 * 1024 // bytes of an output
	maximumWords = 1000      // characters of a reason or an error
	cutNote      = " […]"
)

var unprintable = regexp.MustCompile(`[^\p{L}\p{M}\p{N}\p{P}\p{S}]+`)

// Approve lets a call run.
func Approve(action *godotyv1.Action) *godotyv1.ActionResult { return ApproveWith(action, "") }

// ApproveWith lets a call run with another input, a JSON object as text. The model sees that it was changed.
func ApproveWith(action *godotyv1.Action, inputJSON string) *godotyv1.ActionResult {
	approval := &godotyv1.ActionApproval{InputJson: inputJSON}
	return &godotyv1.ActionResult{
		ActionId: action.GetActionId(), Result: &godotyv1.ActionResult_Approve{Approve: approval},
	}
}

// Deny answers a call with a denial, and the reason that the model sees.
func Deny(action *godotyv1.Action, why string) *godotyv1.ActionResult {
	denial := &godotyv1.ActionDenial{Why: words(why)}
	return &godotyv1.ActionResult{ActionId: action.GetActionId(), Result: &godotyv1.ActionResult_Deny{Deny: denial}}
}

// Output answers a call of a tool of this program, with what [Tool.Run] may return, or with an error.
func Output(action *godotyv1.Action, value any) *godotyv1.ActionResult {
	return &godotyv1.ActionResult{
		ActionId: action.GetActionId(), Result: &godotyv1.ActionResult_Output{Output: outputOf(value)},
	}
}

func outputOf(value any) *godotyv1.ClientToolOutput {
	switch value := value.(type) {
	case *godotyv1.ClientToolOutput:
		return value
	case nil:
		return textOutput("")
	case string:
		return textOutput(value)
	case error:
		text := words(value.Error())
		if text == "" {
			text = "The tool failed."
		}
		return &godotyv1.ClientToolOutput{Output: &godotyv1.ClientToolOutput_Error{Error: text}}
	}
	text, err := json.Marshal(value)
	switch {
	case err != nil:
		return outputOf(err)
	case len(text) > maximumJSON:
		return textOutput(string(text))
	}
	return &godotyv1.ClientToolOutput{Output: &godotyv1.ClientToolOutput_OutputJson{OutputJson: string(text)}}
}

func textOutput(text string) *godotyv1.ClientToolOutput {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maximumText {
		end := maximumText - len(cutNote)
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + cutNote
	}
	return &godotyv1.ClientToolOutput{Output: &godotyv1.ClientToolOutput_OutputText{OutputText: text}}
}

// words returns a text that can be printed, in one line.
func words(text string) string {
	found := []rune(strings.TrimSpace(unprintable.ReplaceAllString(strings.ToValidUTF8(text, "\uFFFD"), " ")))
	if len(found) > maximumWords {
		note := []rune(cutNote)
		found = append(found[:maximumWords-len(note)], note...)
	}
	return string(found)
}
