// Package tosql writes a rule as a query for ClickHouse, and knows where ClickHouse has the fields
// of events: in a column of their own, in the JSON of details, or in the JSON of rest, which has
// every member that has no column, or whose value is not plain text. No other package decides that.
package tosql
