// Package config is the settings of tenantwatch, read from the environment. Config has a paragraph for each:
// its meaning, unit, default and consequence. Load checks all of them and reports every fault at once, by the
// name of the variable and never with a secret.
//
// A setting is a field with a tag, and a check if some of its values are invalid.
package config
