package auth0sim

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestSchemas renders every type with a published schema in its clean form.
func TestSchemas(t *testing.T) {
	dir := filepath.FromSlash("../../../shared/data/log-schemas")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("not proven: that our catalog of log types agrees with the published schemas: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.schema.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no schemas in %s: %v", dir, err)
	}
	if len(files) < 166 {
		t.Errorf("%d schemas, want 166", len(files))
	}
	sim := newTenant(t, Config{Shapes: ShapesClean})
	for _, file := range files {
		code := strings.TrimSuffix(filepath.Base(file), ".schema.json")
		t.Run(code, func(t *testing.T) {
			schema, err := jsonschema.NewCompiler().Compile(file)
			if err != nil {
				t.Fatal(err)
			}
			i, ok := sim.kindIndex[code]
			if !ok {
				t.Fatal("the catalog lacks this type")
			}
			variants := []int{i}
			if v, ok := sim.kindIndex[code+":error"]; ok {
				variants = append(variants, v)
			}
			for _, i := range variants {
				for n := range 20 {
					checkSchema(t, schema, renderKind(sim, i, uint64(n)))
				}
			}
		})
	}
}

// TestBackgroundSchemas checks events as they really are in a clean log.
func TestBackgroundSchemas(t *testing.T) {
	dir := filepath.FromSlash("../../../shared/data/log-schemas")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("not proven: that our catalog of log types agrees with the published schemas: %v", err)
	}
	schemas := make(map[string]*jsonschema.Schema)
	attacks := make([]Attack, 0)
	for kind := range scripts() {
		if kind != AttackLegacyManagementErrors {
			attacks = append(attacks, Attack{Kind: kind, At: -30 * 60e9})
		}
	}
	sim := newTenant(t, Config{Shapes: ShapesClean, HistoryEvents: 3000, Attacks: attacks})
	postForm(sim, "/oauth/token", map[string][]string{"grant_type": {"password"}, "client_id": {"probe-client"}, "username": {"probe@example.com"}, "password": {"probe-password"}})
	postForm(sim, "/oauth/token", map[string][]string{"grant_type": {"password"}, "client_id": {"probe-client"}, "username": {"\"<\xff"}, "password": {"x"}})
	login(t, sim)
	for _, id := range sim.IDs() {
		raw, _ := sim.Event(id)
		var e struct{ Type string }
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		if schemas[e.Type] == nil {
			s, err := jsonschema.NewCompiler().Compile(filepath.Join(dir, e.Type+".schema.json"))
			if err != nil {
				t.Fatal(err)
			}
			schemas[e.Type] = s
		}
		checkSchema(t, schemas[e.Type], raw)
		if t.Failed() {
			return
		}
	}
}

func renderKind(sim *Tenant, kind int, n uint64) []byte {
	s := scene{pos: pos{sim.timeline.anchor, bulkTail + n}, date: sim.timeline.anchor, rng: rng(mix(n + 99))}
	k := &sim.kinds[kind]
	sim.fill(&s, k)
	return k.shapes[shapeModern].render(nil, &s)
}

func checkSchema(t *testing.T, schema *jsonschema.Schema, raw []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%v\nin %s", err, raw)
	}
}

// TestShapesAreJSON renders every type in every shape.
func TestShapesAreJSON(t *testing.T) {
	sim := newTenant(t, Config{})
	for i := range sim.kinds {
		for shape := range shapeCount {
			s := scene{pos: pos{sim.timeline.anchor, bulkTail}, date: sim.timeline.anchor}
			sim.fill(&s, &sim.kinds[i])
			s.flip = shape%2 == 0
			raw := sim.kinds[i].shapes[shape].render(nil, &s)
			if !json.Valid(raw) {
				t.Errorf("%s in shape %d is no JSON: %s", sim.kinds[i].code, shape, raw)
			}
			if got := logID(t, raw); got != s.pos.id() {
				t.Errorf("%s in shape %d has log_id %s", sim.kinds[i].code, shape, got)
			}
		}
	}
	if len(sim.mixture) != 1024 {
		t.Errorf("the weights add up to %d, want 1024", len(sim.mixture))
	}
}
