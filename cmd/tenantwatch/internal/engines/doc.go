// Package engines starts or connects to the Kafka and the ClickHouse of a process, each embedded or external as
// the settings say, and finds those of a running instance for commands.
package engines
