// Package kafka is a client of Kafka on top of kafka-go. It creates topics
// explicitly, produces records with the acknowledgement of all in-sync replicas, and
// consumes partitions one by one in a consumer group.
//
// Produce returns nil only when every record is durable on the brokers. An offset
// is committed only by the consumer. Both are at-least-once: a request with an unknown
// outcome is sent again. The defaults of kafka-go are surprising (no acknowledgements,
// a second of delay, a reader that continues after it has lost its partition); this
// package hides them.
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
	"strconv"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/tenantwatch/tenantwatch/ingest/sleep"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Config configures the connection to a Kafka cluster.
type Config struct {
	Brokers []string       // host:port; at least one must answer
	TLS     *tls.Config    // nil for plain text
	SASL    sasl.Mechanism // nil for none
	Log     *slog.Logger
	// Damaged is called for records that can no longer be read; may be nil.
	Damaged func(Damage)
}

// Bounds of single requests. Every loop here retries after them.
const (
	dialTimeout    = 10 * time.Second
	requestTimeout = 30 * time.Second // more than a broker's own replication timeout
)

// Client is a client of one cluster. All its methods may be called concurrently.
type Client struct {
	cfg       Config
	transport *kafkago.Transport
	dialer    *kafkago.Dialer
	client    *kafkago.Client

	mu     sync.Mutex             // guards groups
	groups map[string]*membership // groups of which this process is a member
}

// NewClient returns a client. It connects when first used.
func NewClient(cfg Config) *Client {
	const clientID = "tenantwatch"
	transport := &kafkago.Transport{DialTimeout: dialTimeout, TLS: cfg.TLS, SASL: cfg.SASL, ClientID: clientID}
	return &Client{
		groups:    map[string]*membership{},
		cfg:       cfg,
		transport: transport,
		dialer: &kafkago.Dialer{Timeout: dialTimeout, DualStack: true, TLS: cfg.TLS, SASLMechanism: cfg.SASL,
			ClientID: clientID},
		client: &kafkago.Client{Addr: kafkago.TCP(cfg.Brokers...), Timeout: requestTimeout, Transport: transport},
	}
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ping returns nil if a broker answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.client.ApiVersions(ctx, &kafkago.ApiVersionsRequest{})
	return err
}

// EnsureTopics creates the topics that are missing. It returns warnings about settings of
// the topics that would lose or reject records.
func (c *Client) EnsureTopics(ctx context.Context, topics []schema.Topic) (warnings []string, err error) {
	existing, err := c.partitions(ctx, topics)

	// A broker only closes the connection if the protocol is wrong.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w (the broker closed the connection: it starts or stops, or it wants TLS or a login "+
			"where there is none, or the reverse)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("list topics on %s: %w", c.brokers(), err)
	}

	// The partitions of an existing topic stay as they are: more would move keys.
	var missing []schema.Topic
	for _, topic := range topics {
		partitions := existing[topic.Name]
		switch {
		case partitions == 0:
			missing = append(missing, topic)
		case partitions < topic.Partitions:
			warnings = append(warnings,
				fmt.Sprintf("topic %s has %d partitions, fewer than %d: at most %d processes can share its work",
					topic.Name, partitions, topic.Partitions, partitions))
		}
	}
	if err := c.createTopics(ctx, missing); err != nil {
		return nil, err
	}

	more, err := c.checkTopics(ctx, topics)
	return append(warnings, more...), err
}

// createTopics creates topics. It is no error if another process has just created them.
func (c *Client) createTopics(ctx context.Context, topics []schema.Topic) error {
	if len(topics) == 0 {
		return nil
	}

	// The cluster decides about the replication.
	var create []kafkago.TopicConfig
	for _, topic := range topics {
		config := kafkago.TopicConfig{Topic: topic.Name, NumPartitions: topic.Partitions, ReplicationFactor: -1}
		for name, value := range topic.Config {
			entry := kafkago.ConfigEntry{ConfigName: name, ConfigValue: value}
			config.ConfigEntries = append(config.ConfigEntries, entry)
		}
		create = append(create, config)
	}

	resp, err := c.client.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: create})
	if err != nil {
		return fmt.Errorf("create topics on %s: %w", c.brokers(), err)
	}
	for topic, err := range resp.Errors {
		if err != nil && !errors.Is(err, kafkago.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s on %s (or let an administrator do so): %w", topic, c.brokers(), err)
		}
	}
	return nil
}

// partitions returns the number of partitions of the topics that exist.
func (c *Client) partitions(ctx context.Context, topics []schema.Topic) (map[string]int, error) {
	var names []string
	for _, topic := range topics {
		names = append(names, topic.Name)
	}
	meta, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: names})
	if err != nil {
		return nil, err
	}

	// A topic with an error does not exist yet, or has no leader.
	found := map[string]int{}
	for _, topic := range meta.Topics {
		if topic.Error == nil {
			found[topic.Name] = len(topic.Partitions)
		}
	}
	return found, nil
}

// checkTopics returns warnings about settings with which records can be lost.
func (c *Client) checkTopics(ctx context.Context, topics []schema.Topic) (warnings []string, err error) {
	if err := c.waitTopics(ctx, topics); err != nil {
		return nil, err
	}

	req := &kafkago.DescribeConfigsRequest{}
	for _, topic := range topics {
		req.Resources = append(req.Resources, kafkago.DescribeConfigRequestResource{
			ResourceType: kafkago.ResourceTypeTopic,
			ResourceName: topic.Name,
			ConfigNames:  []string{"cleanup.policy", "max.message.bytes"},
		})
	}

	// Some clusters forbid this to plain users. Then their administrators care for the settings.
	resp, err := c.client.DescribeConfigs(ctx, req)
	if err != nil {
		return []string{fmt.Sprintf("cannot read the topics' settings: %v", err)}, nil
	}

	for _, resource := range resp.Resources {
		name := resource.ResourceName
		i := slices.IndexFunc(topics, func(topic schema.Topic) bool { return topic.Name == name })
		if i < 0 || resource.Error != nil {
			continue
		}
		for _, entry := range resource.ConfigEntries {
			value, want := entry.ConfigValue, topics[i].Config[entry.ConfigName]
			switch {
			case value == want || want == "":
			case entry.ConfigName == "cleanup.policy":
				warnings = append(warnings,
					fmt.Sprintf("topic %s has cleanup.policy=%s, not %s: records can be lost", name, value, want))
			case entry.ConfigName == "max.message.bytes" && lessBytes(value, want):
				warnings = append(warnings,
					fmt.Sprintf("topic %s has max.message.bytes=%s, less than %s: a larger event stops the pull",
						name, value, want))
			}
		}
	}
	return warnings, nil
}

// lessBytes reports whether a setting is a smaller number of bytes than another.
func lessBytes(value, than string) bool {
	bytes, err := strconv.ParseInt(value, 10, 64)
	least, leastErr := strconv.ParseInt(than, 10, 64)
	return err == nil && leastErr == nil && bytes < least
}

// waitTopics waits until new topics are visible.
func (c *Client) waitTopics(ctx context.Context, topics []schema.Topic) error {
	for attempt := 0; ; attempt++ {
		found, err := c.partitions(ctx, topics)
		if err == nil && len(found) == len(topics) {
			return nil
		}
		if attempt == 50 {
			return errors.Join(fmt.Errorf("topics were created on %s but are not visible", c.brokers()), err)
		}
		if !sleep.For(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (c *Client) brokers() string { return strings.Join(c.cfg.Brokers, ", ") }

// dialLeader connects to the leader of a partition.
func (c *Client) dialLeader(ctx context.Context, topic string, partition int) (*kafkago.Conn, error) {
	// Any broker that answers knows the leader.
	var errs []error
	for _, broker := range c.cfg.Brokers {
		conn, err := c.dialer.DialLeader(ctx, "tcp", broker, topic, partition)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to the leader of partition %d of %s: %w", partition, topic, errors.Join(errs...))
}

// Passing reports whether an error is temporary: a broker is down or not ready, rather than
// that it rejects the request.
func Passing(err error) bool {
	// An answer of a broker is a net.Error too, whatever it says, so check its code first.
	var answer kafkago.Error
	if errors.As(err, &answer) {
		return answer.Temporary() || answer.Timeout()
	}

	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
