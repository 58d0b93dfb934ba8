// Package logger makes the program's log: text or JSON, with a repeated warning once a minute.
package logger
