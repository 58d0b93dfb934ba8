// Package kafka is our side of the Kafka protocol, over kafka-go: topics made
// explicitly, produced records acknowledged by all in-sync replicas, and
// partitions consumed one by one under a consumer group.
//
// It promises that Produce returns nil only when every record is on the
// brokers' side for good, and that a consumed offset is committed only when the
// consumer says so. Both are at-least-once: what has an unknown outcome is sent
// or read again. kafka-go's own settings are not those one would expect (no
// acks, a second of waiting, a reader that goes on after it lost its
// partition); nothing outside this package sees them.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Config is how to reach a Kafka cluster.
type Config struct {
	Brokers []string       // host:port, at least one that answers
	TLS     *tls.Config    // nil for plain text
	SASL    sasl.Mechanism // nil for none
	Log     *slog.Logger
	// Damaged hears of records that cannot be read any more; may be nil.
	Damaged func(Damage)
}

// Bounds of single requests; every loop here begins again after them.
const (
	dialTimeout    = 10 * time.Second
	requestTimeout = 30 * time.Second // more than a broker's own replication timeout
)

// Client talks to one cluster. All its methods may run concurrently.
type Client struct {
	cfg       Config
	transport *kafkago.Transport
	dialer    *kafkago.Dialer
	client    *kafkago.Client

	mu     sync.Mutex             // guards groups
	groups map[string]*membership // those that this process is a member of
}

// NewClient returns a client. It connects when first used.
func NewClient(cfg Config) *Client {
	transport := &kafkago.Transport{DialTimeout: dialTimeout, TLS: cfg.TLS, SASL: cfg.SASL, ClientID: "tenantwatch"}
	return &Client{
		groups:    map[string]*membership{},
		cfg:       cfg,
		transport: transport,
		dialer:    &kafkago.Dialer{Timeout: dialTimeout, DualStack: true, TLS: cfg.TLS, SASLMechanism: cfg.SASL, ClientID: "tenantwatch"},
		client:    &kafkago.Client{Addr: kafkago.TCP(cfg.Brokers...), Timeout: requestTimeout, Transport: transport},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ping asks a broker whether it is there.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.client.ApiVersions(ctx, &kafkago.ApiVersionsRequest{})
	return err
}

// EnsureTopics makes the topics that are missing. Of those that are there it
// checks what would lose or refuse records, and says so in warnings.
func (c *Client) EnsureTopics(ctx context.Context, topics []schema.Topic) (warnings []string, err error) {
	existing, err := c.partitions(ctx, topics)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // all that a broker says of a wrong protocol
		err = fmt.Errorf("%w (the broker hangs up: it starts or ends, or it wants TLS or a login where there is none, or the reverse)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("list topics on %s: %w", c.brokers(), err)
	}
	var create []kafkago.TopicConfig
	for _, t := range topics {
		if n := existing[t.Name]; n > 0 {
			if n < t.Partitions {
				warnings = append(warnings, fmt.Sprintf("topic %s has %d partitions, fewer than %d: at most %d processes can share its work", t.Name, n, t.Partitions, n))
			}
			continue
		}
		tc := kafkago.TopicConfig{Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: -1}
		for name, value := range t.Config {
			tc.ConfigEntries = append(tc.ConfigEntries, kafkago.ConfigEntry{ConfigName: name, ConfigValue: value})
		}
		create = append(create, tc)
	}
	if len(create) > 0 {
		res, err := c.client.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: create})
		if err != nil {
			return nil, fmt.Errorf("create topics on %s: %w", c.brokers(), err)
		}
		for topic, err := range res.Errors {
			if err != nil && !errors.Is(err, kafkago.TopicAlreadyExists) {
				return nil, fmt.Errorf("create topic %s on %s (or let an administrator do so): %w", topic, c.brokers(), err)
			}
		}
	}
	more, err := c.checkTopics(ctx, topics)
	return append(warnings, more...), err
}

// partitions returns the number of partitions of the topics that exist.
func (c *Client) partitions(ctx context.Context, topics []schema.Topic) (map[string]int, error) {
	var names []string
	for _, t := range topics {
		names = append(names, t.Name)
	}
	meta, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: names})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, t := range meta.Topics {
		if t.Error == nil {
			found[t.Name] = len(t.Partitions)
		}
	}
	return found, nil
}

// checkTopics compares the settings that matter for not losing anything. It
// waits until the topics that were just made can be seen.
func (c *Client) checkTopics(ctx context.Context, topics []schema.Topic) (warnings []string, err error) {
	for attempt := 0; ; attempt++ {
		found, err := c.partitions(ctx, topics)
		if err == nil && len(found) == len(topics) {
			break
		}
		if attempt == 50 {
			return nil, fmt.Errorf("topics were created on %s but do not show: %v", c.brokers(), err)
		}
		if !wait(ctx, 100*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
	req := &kafkago.DescribeConfigsRequest{}
	for _, t := range topics {
		req.Resources = append(req.Resources, kafkago.DescribeConfigRequestResource{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: t.Name, ConfigNames: []string{"cleanup.policy", "max.message.bytes"}})
	}
	res, err := c.client.DescribeConfigs(ctx, req)
	if err != nil {
		// Some clusters forbid this to plain users; then the settings are theirs.
		return []string{fmt.Sprintf("cannot read the topics' settings: %v", err)}, nil
	}
	for _, r := range res.Resources {
		i := slices.IndexFunc(topics, func(t schema.Topic) bool { return t.Name == r.ResourceName })
		if i < 0 || r.Error != nil {
			continue
		}
		for _, e := range r.ConfigEntries {
			want := topics[i].Config[e.ConfigName]
			switch {
			case e.ConfigValue == want || want == "":
			case e.ConfigName == "cleanup.policy":
				warnings = append(warnings, fmt.Sprintf("topic %s has cleanup.policy=%s, not %s: records can be lost", r.ResourceName, e.ConfigValue, want))
			case e.ConfigName == "max.message.bytes" && len(e.ConfigValue) < len(want):
				warnings = append(warnings, fmt.Sprintf("topic %s has max.message.bytes=%s, less than %s: an event above it stops the pull", r.ResourceName, e.ConfigValue, want))
			}
		}
	}
	return warnings, nil
}

func (c *Client) brokers() string { return strings.Join(c.cfg.Brokers, ", ") }

// dialLeader connects to the leader of a partition.
func (c *Client) dialLeader(ctx context.Context, topic string, partition int) (*kafkago.Conn, error) {
	var errs []error
	for _, broker := range c.cfg.Brokers {
		conn, err := c.dialer.DialLeader(ctx, "tcp", broker, topic, partition)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("reach the leader of partition %d of %s: %w", partition, topic, errors.Join(errs...))
}

// Passing reports whether an error is one of a broker that is not there, or not
// ready, rather than one that refuses. (An answer of a broker is a net.Error
// too, whatever it says: that alone tells nothing.)
func Passing(err error) bool {
	var answer kafkago.Error
	if errors.As(err, &answer) {
		return answer.Temporary() || answer.Timeout()
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// wait sleeps for d and reports whether ctx is still alive.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
