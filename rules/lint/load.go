package lint

import "github.com/tenantwatch/tenantwatch/rules"

// checkLoad returns the errors and warnings of loading a document.
func checkLoad(d *rules.Document) (list []Finding) {
	add := func(severity Severity, text string) {
		line, rest := d.Position(text)

		// The text may begin with a more exact line than the document's.
		if line == 0 {
			line = d.Line
		}
		list = append(list, Finding{Severity: severity, File: d.File, Line: line, ID: d.ID, Title: d.Title, Text: rest})
	}

	switch d.Status {
	case rules.StatusRefused:
		add(SeverityError, d.Reason)
	case rules.StatusWaiting:
		add(SeverityInfo, "it does not run: "+d.Reason)
	}

	// Warnings apply whatever the status.
	for _, warning := range d.Warnings {
		add(SeverityWarning, warning)
	}
	return list
}
