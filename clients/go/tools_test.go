package godoty

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// Any value is an output that the server takes.
func TestOutputs(t *testing.T) {
	image := &godotyv1.ClientToolOutput{Output: &godotyv1.ClientToolOutput_AttachmentId{AttachmentId: "att_1"}}
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"nothing":     {nil, "text "},
		"a text":      {"two pens", "text two pens"},
		"a value":     {map[string]int{"pens": 2}, `JSON {"pens":2}`},
		"an error":    {errors.New("no\nshop\t here"), "error no shop here"},
		"no words":    {errors.New("\n"), "error The tool failed."},
		"no JSON":     {func() {}, "error json: unsupported type: func()"},
		"a message":   {image, "attachment att_1"},
		"broken text": {"a\xff", "text a\uFFFD"},
	} {
		if got := described(outputOf(test.value)); got != test.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func described(output *godotyv1.ClientToolOutput) string {
	switch output := output.GetOutput().(type) {
	case *godotyv1.ClientToolOutput_OutputText:
		return "text " + output.OutputText
	case *godotyv1.ClientToolOutput_OutputJson:
		return "JSON " + output.OutputJson
	case *godotyv1.ClientToolOutput_AttachmentId:
		return "attachment " + output.AttachmentId
	case *godotyv1.ClientToolOutput_Error:
		return "error " + output.Error
	}
	return ""
}

// What is too long is cut between characters; a long value becomes a text.
func TestLongOutputsAreCut(t *testing.T) {
	text := outputOf(strings.Repeat("ä€😀", 20_000)).GetOutputText()
	if len(text) > maximumText || len(text) < maximumText-10 || !utf8.ValidString(text) || !strings.HasSuffix(text, cutNote) {
		t.Errorf("a text of %d bytes", len(text))
	}
	if value := outputOf([]string{strings.Repeat("x", maximumJSON)}); len(value.GetOutputText()) != maximumJSON+4 {
		t.Errorf("a value: %d", len(value.GetOutputText()))
	}
	if words := outputOf(errors.New(strings.Repeat("ä", 2000))).GetError(); utf8.RuneCountInString(words) != maximumWords {
		t.Errorf("an error of %d characters", utf8.RuneCountInString(words))
	}
}

// A request has at most 16 answers and 120 KiB of them; the others follow when they are asked again, and run once.
func TestAnswersAreSentInSeveralRequests(t *testing.T) {
	runs := 0
	run := func(context.Context, json.RawMessage) (any, error) {
		runs++
		if runs > 18 {
			return strings.Repeat("x", 50_000), nil
		}
		return "ok", nil
	}
	given := answers{tools: []Tool{{Name: "look", Run: run}}}
	var actions []*godotyv1.Action
	for number := range 22 {
		kind := godotyv1.ActionKind_ACTION_KIND_CLIENT_TOOL
		actions = append(actions, &godotyv1.Action{ActionId: fmt.Sprint(number), Kind: kind, Name: "look"})
	}
	for _, want := range []int{16, 4, 2, 0} {
		found, err := given.to(t.Context(), actions)
		size := 0
		for _, each := range found {
			size += proto.Size(each)
		}
		if err != nil || len(found) != want || size > 128*1024 {
			t.Fatalf("%d answers of %d bytes, %v", len(found), size, err)
		}
		actions = actions[len(found):]
	}
	if runs != 22 {
		t.Errorf("%d runs", runs)
	}
}
