// Package lead decides which process pulls a tenant, and carries requests to it.
//
// The processes that pull are one consumer group of the topic checkpoints. The checkpoints of a tenant are in
// one partition, and the process that is assigned the partition leads: it pulls the tenant. When it dies, Kafka
// assigns the partition to another one, which continues from the checkpoints in it. There are no locks and no
// leases of our own.
//
// A request, such as a backfill or an audit, is the first checkpoint of a chain that the leader has not started.
// The leader finds it in its partition, works on it and answers with the later checkpoints of the chain. A
// request outlives the leader: the next one finds the unfinished chain among the checkpoints.
package lead
