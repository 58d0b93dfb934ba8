package config

import (
	"slices"
	"strings"
	"testing"
)

// TestTenantsFaults: what is wrong with one of several tenants is said with its
// variable.
func TestTenantsFaults(t *testing.T) {
	t.Parallel()
	one := []string{"TENANTS_0_DOMAIN=a.eu.auth0.com", "TENANTS_0_CLIENT_ID=a", "TENANTS_0_CLIENT_SECRET=hush"}
	two := []string{"TENANTS_1_DOMAIN=b.eu.auth0.com", "TENANTS_1_CLIENT_ID=b", "TENANTS_1_CLIENT_SECRET=hush"}
	both := append(slices.Clone(one), two...)
	if c, err := Load(both, Need{Tenant: true}); err != nil || len(c.Tenants) != 2 || c.Tenants[0].Name != "a" || c.Tenants[1].Name != "b" {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, tt := range []struct {
		name    string
		environ []string
		receive bool
		want    []string
	}{
		{"nothing but a name", append(slices.Clone(one), "TENANTS_1_NAME=b"), false,
			[]string{"TENANTS_1_CLIENT_ID: is not set", "TENANTS_1_CLIENT_SECRET: is not set", "TENANTS_1_DOMAIN: is not set"}},
		{"a gap", append(slices.Clone(one), "TENANTS_2_DOMAIN=c.eu.auth0.com"), false, []string{"TENANTS_2_DOMAIN: unknown setting"}},
		{"no first one", two, false, []string{"TENANTS_1_CLIENT_ID: TENANTS_0_DOMAIN is not set", "AUTH0_DOMAIN: is not set", "AUTH0_CLIENT_ID: is not set", "AUTH0_CLIENT_SECRET: is not set"}},
		{"a single tenant in place of the first", append(slices.Clone(two), "AUTH0_DOMAIN=a.eu.auth0.com", "AUTH0_CLIENT_ID=a", "AUTH0_CLIENT_SECRET=hush"), false,
			[]string{"TENANTS_1_CLIENT_ID: AUTH0_DOMAIN is set too, and TENANTS_0_DOMAIN is not"}},
		{"the same name", append(slices.Clone(both), "TENANTS_1_NAME=a"), false, []string{"TENANTS_1_NAME: TENANTS_0 is named a too"}},
		{"a bad name", append(slices.Clone(both), "TENANTS_1_NAME=a/b"), false, []string{"TENANTS_1_NAME: \"a/b\": want letters"}},
		{"one of the single tenant's", append(slices.Clone(both), "AUTH0_DOMAIN=c.eu.auth0.com", "TENANTWATCH_TENANT=x", "PROBE_CLIENT_ID=p"), false,
			[]string{"AUTH0_DOMAIN: TENANTS_0_… is set too", "PROBE_CLIENT_ID: TENANTS_0_… is set too", "TENANTWATCH_TENANT: TENANTS_0_… is set too"}},
		{"a typo", append(slices.Clone(both), "TENANTS_1_CLIENTID=x"), false, []string{"TENANTS_1_CLIENTID: unknown setting"}},
		{"two secrets", append(slices.Clone(both), "TENANTS_1_PRIVATE_KEY=hush"), false, []string{"TENANTS_1_CLIENT_SECRET: TENANTS_1_PRIVATE_KEY is set too"}},
		{"half a probe", append(slices.Clone(both), "TENANTS_1_PROBE_USERNAME=u"), false,
			[]string{"TENANTS_1_PROBE_CLIENT_ID: is not set", "TENANTS_1_PROBE_PASSWORD: is not set"}},
		{"short tokens", append(slices.Clone(both), "TENANTS_0_RECEIVE_TOKEN=hush"), true,
			[]string{"TENANTS_0_RECEIVE_TOKEN: want what the log stream sends", "TENANTS_1_RECEIVE_TOKEN: want what the log stream sends"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(tt.environ, Need{Tenant: true, Receive: tt.receive})
			if err == nil {
				t.Fatal("no fault")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not said:\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n"); n != len(tt.want) {
				t.Errorf("%d faults, want %d:\n%v", n, len(tt.want), err)
			}
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("a secret is said:\n%v", err)
			}
		})
	}
}
