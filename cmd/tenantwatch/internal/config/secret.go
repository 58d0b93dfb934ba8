package config

// Secret is a setting that is never printed. Each secret NAME can also be read from the file that the
// variable NAME_FILE names.
type Secret string

// redacted stands for a secret in logs and dumps.
const redacted = "<secret>"

// String keeps a secret out of texts.
func (Secret) String() string { return redacted }

// GoString keeps a secret out of dumps with %#v.
func (Secret) GoString() string { return redacted }

// MarshalText keeps a secret out of JSON and logs.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText sets the secret.
func (s *Secret) UnmarshalText(text []byte) error { *s = Secret(text); return nil }
