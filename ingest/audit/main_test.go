package audit_test

import (
	"os"
	"testing"

	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

func TestMain(m *testing.M) {
	chlocal.Host()
	os.Exit(m.Run())
}
