// Package pace keeps all calls to one tenant within a share of its rate limit, and divides them
// among our own callers by priority.
//
// It promises that our calls leave the others' share of the limit to them, that the tail goes before
// all other callers, that no caller starves, and that no call is made while the tenant refuses them.
// It leaves to its callers the calls themselves, their retries, and the report of each answer:
// Observe must follow every Wait.
//
// No header has the rate at which a bucket of calls is refilled, so a Limiter measures it while
// callers have to wait:
//
//	        calls wait, or the rate is unknown
//	┌──────┐ ───────────────────────────────▶ ┌──────────┐
//	│ idle │                                  │ draining │ ◀─────────────────────┐
//	└──────┘ ◀─────────────────────────────── └──────────┘                       │
//	 ▲    ▲    the bucket does not drain            │ half of it is left         │
//	 │    │                                         ▼                            │
//	 │    │                                   ┌──────────┐                       │
//	 │    │                                   │ waiting  │                       │
//	 │    │                                   └──────────┘                       │
//	 │    │                                         │ no call is in flight       │
//	 │    │  enough tokens were added, or           ▼                            │
//	 │    │  the measurement took too long    ┌──────────┐  the bucket fills up  │
//	 │    └────────────────────────────────── │ watching │ ──────────────────────┘
//	 │                                        └──────────┘
//	 └── from every state: the tenant refuses a call, or its limit changes
//
// While draining, calls go as fast as they can; while watching, one at a time, so that each answer
// shows exactly how many tokens were added since the last one. The calls beyond our share are paid
// back after the measurement.
package pace
