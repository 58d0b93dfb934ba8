package schema

// Column is a member of an event that has its own column in events_stored. A new one is
// a line at the end of Columns, and a migration that adds it to the table and to raw in
// the view events.
type Column struct {
	// Name is the member's name, and its column's.
	Name string
	// Expr is the member's text in SQL, where that is not the column itself.
	Expr string
	// Few says that many events share a value, so that the column is LowCardinality.
	Few bool
}

// SQL returns the member's text as a ClickHouse expression.
func (c Column) SQL() string {
	switch {
	case c.Expr != "":
		return c.Expr
	case c.Few:
		return "toString(" + c.Name + ")"
	}
	return c.Name
}

// Columns are the members that have columns. Their order is the order of the bits in
// Row.Members: it never changes, and new ones are appended.
var Columns = [...]Column{
	// These have their own field in Row, and are the key of the table or a part of it.
	{Name: "_id", Expr: "log_id"},
	{Name: "log_id"},
	{Name: "date", Expr: "concat(replaceOne(toString(date), ' ', 'T'), 'Z')"},
	{Name: "type", Few: true},

	// The column of each of these has just the member's text, in Row.Texts.
	{Name: "tenant_name", Few: true},
	{Name: "environment_name", Few: true},
	{Name: "description"},
	{Name: "client_id", Few: true},
	{Name: "client_name", Few: true},
	{Name: "connection", Few: true},
	{Name: "connection_id", Few: true},
	{Name: "ip"},
	{Name: "client_ip"},
	{Name: "user_id"},
	{Name: "user_name"},
	{Name: "identity_user_id"},
	{Name: "user_agent", Few: true},
	{Name: "hostname", Few: true},
	{Name: "strategy", Few: true},
	{Name: "strategy_type", Few: true},
	{Name: "organization_id", Few: true},
	{Name: "organization_name", Few: true},
	{Name: "audience", Few: true},
	{Name: "scope", Few: true},
}

// The columns with their own field in Row, as indexes in Columns.
const (
	colID = iota // _id, a copy of log_id
	colLogID
	colDate
	colType
)

// FirstText is the index in Columns and Row.Texts of the first column that has just a
// member's text.
const FirstText = colType + 1

// ColumnIndex returns the index of a member in Columns, or -1 if it has no column.
func ColumnIndex(member string) int { return max(columnOfName([]byte(member)), noColumn) }

// TextColumns returns the names of the columns from FirstText on.
func TextColumns() []string {
	var names []string
	for _, column := range Columns[FirstText:] {
		names = append(names, column.Name)
	}
	return names
}

// The index of members that have no column.
const (
	noColumn      = -1
	detailsColumn = -2
)

// columnTable finds a column by its name. An event has about thirty names, and a map
// would take twice as long for them.
type columnTable [256]int8

var columnsByName = newColumnTable()

func newColumnTable() *columnTable {
	t := &columnTable{}
	for i := range t {
		t[i] = noColumn
	}
	for i, column := range Columns {
		t[t.slot([]byte(column.Name))] = int8(i)
	}
	return t
}

// slot returns the slot of a name: its own, or the free one where it belongs.
func (t *columnTable) slot(name []byte) uint8 {
	slot := uint8(len(name)*31) ^ name[0]*7 ^ name[len(name)-1]*3
	for t[slot] != noColumn && Columns[t[slot]].Name != string(name) {
		slot++
	}
	return slot
}

// columnOfName returns the index of a name in Columns, detailsColumn or noColumn.
func columnOfName(name []byte) int {
	switch {
	case len(name) == 0:
		return noColumn
	case string(name) == "details":
		return detailsColumn
	}
	return int(columnsByName[columnsByName.slot(name)])
}
