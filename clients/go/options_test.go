package godoty

import (
	"strings"
	"testing"
	"time"
)

// The error says which setting is missing or wrong, and never has the key.
func TestWrongOptionsAreRefused(t *testing.T) {
	target, key := WithTarget("127.0.0.1:50051"), WithAPIKey("gdt_id_secret")
	for name, test := range map[string]struct {
		options []Option
		want    string
	}{
		"no server":    {[]Option{key}, "GODOTY_LISTEN"},
		"no key":       {[]Option{target}, "GODOTY_API_KEY"},
		"a key in two": {[]Option{target, WithAPIKey("gdt_id secret")}, "GODOTY_API_KEY"},
		"no time":      {[]Option{target, key, WithTimeout(0)}, "timeout"},
		"a long grace": {[]Option{target, key, WithDisconnectGrace(time.Hour)}, "10 minutes"},
		"no such file": {[]Option{target, key}, "GODOTY_TLS_CA"},
	} {
		t.Setenv("GODOTY_LISTEN", "")
		t.Setenv("GODOTY_API_KEY", "")
		t.Setenv("GODOTY_TLS_CA", "")
		if name == "no such file" {
			t.Setenv("GODOTY_TLS_CA", "/no/such/file")
		}
		client, err := New(test.options...)
		if err == nil {
			_ = client.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
