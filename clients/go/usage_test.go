package godoty

import (
	"errors"
	"slices"
	"testing"

	godotyv1 "github.com/godoty/godoty/clients/go/godoty/v1"
)

// An unset amount is unknown, which is not 0; others are exact.
func TestUSD(t *testing.T) {
	if USD(nil) != nil {
		t.Error("an unset amount is known")
	}
	amount := "0.0000000000000000000000001"
	if got := FormatUSD(USD(&amount)); got != amount {
		t.Errorf("USD(%s) = %s", amount, got)
	}
}

// All pages are read, from the first one, each time; an error ends the list after the items before it.
func TestPages(t *testing.T) {
	failure := errors.New("no third page")
	fails := false
	numbers := pages(func(token string) ([]int, string, error) {
		switch {
		case token == "":
			return []int{1, 2}, "a", nil
		case token == "a":
			return nil, "b", nil
		case fails:
			return nil, "", failure
		}
		return []int{3}, "", nil
	})
	for _, want := range []error{nil, nil, failure} {
		fails = want != nil
		var found []int
		var err error
		for number, each := range numbers {
			if err = each; err == nil {
				found = append(found, number)
			}
		}
		if expected := []int{1, 2, 3}[:3-btoi(fails)]; !slices.Equal(found, expected) || !errors.Is(err, want) {
			t.Errorf("pages: %v, %v", found, err)
		}
	}
	for number := range numbers {
		if number == 2 {
			break
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The cost of totals is not known while that of a call is not.
func TestCostOfTotals(t *testing.T) {
	amount := "0.25"
	for _, test := range []struct {
		totals *godotyv1.Totals
		known  bool
	}{
		{&godotyv1.Totals{CostUsd: &amount}, true},
		{&godotyv1.Totals{CostUsd: &amount, PendingCalls: 1}, false},
		{&godotyv1.Totals{CostUsd: &amount, UnresolvedCalls: 1}, false},
		{&godotyv1.Totals{}, false},
		{nil, false},
	} {
		if got := CostOf(test.totals); (got != nil) != test.known {
			t.Errorf("CostOf(%v) = %v", test.totals, got)
		}
	}
}
