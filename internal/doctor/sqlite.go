package doctor

var sqlite = words{
	version:    `select sqlite_version()`,
	oldest:     []int{3, 42},
	oldestName: "SQLite 3.42",

	journal: `pragma journal_mode`,
}
