package schema

import "strconv"

// Topics are the full names of the Kafka topics.
type Topics struct {
	Events string // key tenant, value an event's JSON as received
	// Checkpoints has the key tenant/chain and the position of the pull chain as value. The process
	// that is assigned a partition leads its tenants.
	Checkpoints string
	Alerts      string // key fingerprint, value an Alert after each transition
	DeadLetter  string // key tenant, value a record that could not be stored
}

// NewTopics returns the topics' names under a prefix, such as "tenantwatch.".
func NewTopics(prefix string) Topics {
	return Topics{
		Events:      prefix + "events",
		Checkpoints: prefix + "checkpoints",
		Alerts:      prefix + "alerts",
		DeadLetter:  prefix + "deadletter",
	}
}

// Topic has the settings with which a topic is created.
type Topic struct {
	Name       string
	Partitions int
	Config     map[string]string // Kafka's own names and units
}

// MaxMessage is the size of the largest record that the topics accept, in bytes: an Auth0
// event of 2 MB with plenty of room. Kafka's default is 1 MB.
const MaxMessage = 32 << 20

const day = 24 * 3600 * 1000 // in milliseconds

// All returns the topics with their settings. segment is the size of a segment
// file in bytes, 0 for the broker's default.
func (t Topics) All(segment int) []Topic {
	// Every topic accepts the same record size.
	config := func(settings map[string]string) map[string]string {
		settings["max.message.bytes"] = strconv.Itoa(MaxMessage)
		if segment > 0 {
			settings["segment.bytes"] = strconv.Itoa(segment)
		}
		return settings
	}

	return []Topic{
		{t.Events, 6, config(map[string]string{"cleanup.policy": "delete", "retention.ms": strconv.Itoa(7 * day),
			"compression.type": "producer"})},
		{t.Checkpoints, 6, config(map[string]string{"cleanup.policy": "compact"})},
		{t.Alerts, 6, config(map[string]string{"cleanup.policy": "compact"})},
		{t.DeadLetter, 1, config(map[string]string{"cleanup.policy": "delete",
			"retention.ms": strconv.Itoa(30 * day)})},
	}
}
