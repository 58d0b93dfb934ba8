package silence_test

import (
	"os"
	"testing"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

func TestMain(m *testing.M) {
	chlocal.Host() // where the test binary runs the engine
	os.Exit(m.Run())
}
