package output

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Console is an output that lines, the log and a progress bar share. Write puts its lines above the bar.
type Console struct {
	w        io.Writer
	terminal bool // w is a terminal

	mu  sync.Mutex // guards bar and writes
	bar *progressbar.ProgressBar
}

// NewConsole returns a console on w. The progress is a bar if w is a terminal.
func NewConsole(w io.Writer) *Console {
	file, ok := w.(*os.File)
	return &Console{w: w, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

// Write prints whole lines.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bar != nil {
		_ = c.bar.Clear()
		// Draw the bar again below the lines.
		defer func() { _ = c.bar.RenderBlank() }()
	}
	return c.w.Write(p)
}

// Printf prints a line.
func (c *Console) Printf(format string, args ...any) {
	fmt.Fprintf(c, format+"\n", args...)
}

// Terminal reports whether the output is a terminal.
func (c *Console) Terminal() bool { return c.terminal }

// LogWriter returns the writer of the log: stderr, or the console when both are the terminal, so that log
// lines appear above the progress bar.
func (c *Console) LogWriter(stderr io.Writer) io.Writer {
	if c.terminal && NewConsole(stderr).terminal {
		return c
	}
	return stderr
}
