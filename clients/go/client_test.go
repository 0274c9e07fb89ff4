package godoty

import (
	"fmt"
	"testing"
)

// Plain text is spoken to this machine only.
func TestIsLoopback(t *testing.T) {
	for target, want := range map[string]bool{
		"127.0.0.1:50051":           true,
		"[::1]:50051":               true,
		"localhost:50051":           true,
		"localhost.example:50051":   false,
		"127.0.0.1.example:50051":   false,
		"10.0.0.1:50051":            false,
		"dns:///localhost:50051":    false,
		"127.0.0.1:1,8.8.8.8:2":     false,
		"passthrough:///10.0.0.1:1": false,
	} {
		if got := isLoopback(target); got != want {
			t.Errorf("isLoopback(%q) = %v", target, got)
		}
	}
}

// An API key does not print itself.
func TestBearerHidesItself(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, bearer("gdt_id_secret")); got != "Bearer ***" {
			t.Errorf("%s prints %q", format, got)
		}
	}
}
