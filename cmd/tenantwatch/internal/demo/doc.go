// Package demo is the simulated tenant of tenantwatch demo: the script by which its log continues over restarts,
// the settings that reach it, and the alerts that it promises.
package demo
