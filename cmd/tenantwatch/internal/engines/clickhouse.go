package engines

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/config"
	"github.com/tenantwatch/tenantwatch/cmd/tenantwatch/internal/version"
	"github.com/tenantwatch/tenantwatch/ingest/write"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
)

func (e *Engines) startClickHouse(ctx context.Context) error {
	c := e.cfg
	dsn := string(c.ClickHouse.DSN)
	if dsn == "" {
		engine, err := StartClickHouse(ctx, c, e.log.With("part", "clickhouse"))
		if err != nil {
			return err
		}
		e.ClickHouse = engine
		e.onClose(func() { _ = engine.Close() })
		dsn = engine.DSN(chlocal.Owner, chlocal.Database)
	}

	opts, err := schema.Options(dsn, tune(c))
	if err != nil {
		return err
	}

	// The writer has its own connections. They are opened when the first chunk is inserted.
	e.Store = write.NewStore(opts)
	e.onClose(e.Store.Close)

	return retryStart(ctx, e.log, "ClickHouse", func() error { return e.connect(ctx, dsn) })
}

// connect connects to ClickHouse, migrates the tables and sets the retention.
func (e *Engines) connect(ctx context.Context, dsn string) error {
	conn, err := schema.Open(ctx, dsn, tune(e.cfg))
	if err != nil && strings.Contains(err.Error(), httpAnswer) {
		return fmt.Errorf("CLICKHOUSE_DSN: this is an HTTP port; "+
			"inserts need the port of the native protocol, usually 9000: %w", err)
	}
	if err != nil {
		return err
	}

	// If we stop between two migrations, the next start applies the rest.
	applied, err := schema.Migrate(ctx, conn)
	if err == nil {
		err = schema.SetRetention(ctx, conn, e.cfg.Parsed.Retention)
	}
	if err != nil {
		conn.Close()
		return err
	}
	for _, name := range applied {
		e.log.Info("migration applied", "name", name)
	}

	e.Conn = conn
	e.onClose(func() { conn.Close() })
	return nil
}

// httpAnswer is the driver's error text for an answer that starts like HTTP/1.1: 72 is "H". The driver has no
// error type for it.
const httpAnswer = "unexpected packet [72]"

// tune returns a function that sets the options that a DSN cannot express.
func tune(c *config.Config) func(*clickhouse.Options) {
	return func(o *clickhouse.Options) {
		if c.Parsed.ClickHouseTLS != nil {
			o.TLS = c.Parsed.ClickHouseTLS
		}
		if o.Compression == nil && !loopback(o.Addr) { // on loopback compression costs more than it saves
			o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
		}
		o.DialTimeout = 10 * time.Second
		product := struct{ Name, Version string }{"tenantwatch", version.String()}
		o.ClientInfo.Products = append(o.ClientInfo.Products, product)
	}
}

// loopback reports whether all addresses are on this machine.
func loopback(addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(addr string) bool {
		host, _, err := net.SplitHostPort(addr)
		ip := net.ParseIP(host)
		return err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback())
	})
}

// StartClickHouse starts the embedded ClickHouse.
func StartClickHouse(ctx context.Context, c *config.Config, log *slog.Logger) (*chlocal.Server, error) {
	engine, err := chlocal.FindEngine(c.Engine)
	if err != nil {
		return nil, err
	}

	// Kafka, which starts at the same time, may have created it already.
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}

	return chlocal.Start(ctx, chlocal.Config{
		Dir: filepath.Join(c.DataDir, ClickHouseDir), Engine: engine, Log: log,
		Tenants: c.TenantNames(), Bounds: c.Parsed.SQLBounds,
	})
}
