package doctor

var postgres = words{
	version:    `select current_setting('server_version')`,
	oldest:     []int{12},
	oldestName: "PostgreSQL 12",

	readOnly: `select case when pg_is_in_recovery() then 'it is a standby'
			when current_setting('transaction_read_only') = 'on' then 'default_transaction_read_only is on' else '' end,
		case when pg_is_in_recovery() then 'connect to the primary'
			else 'connect to the primary; or, if this is it: alter role USER set default_transaction_read_only = off' end`,

	user: `select quote_ident(current_user)`,

	fingerprintFix: "grant execute on function pg_control_system(), pg_current_wal_lsn(), pg_walfile_name(pg_lsn) to USER",

	isolation:    `select current_setting('default_transaction_isolation')`,
	isolationFix: "alter role USER set default_transaction_isolation = 'read committed'",
	levels:       map[string]Verdict{"read committed": OK, "read uncommitted": OK}, // the same

	lossy: `select name, setting, case context when 'user' then 'alter role USER set ' || name || ' = on'
			else 'set ' || name || ' to on in postgresql.conf' end
		from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off' order by name`,

	process: `select pg_backend_pid()`,
	bounded: `select setting <> '0' from pg_settings where name = 'statement_timeout'`,
	listens: true,

	// How many others have is shown to everybody here, and not in pg_stat_activity.
	room: `select sum(numbackends)::int, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
		from pg_stat_database where datid <> 0`,

	oldTransaction: `select extract(epoch from clock_timestamp() - since)::float8, whose, undo from (
			select xact_start as since, state || ', of ' || usename || coalesce(' by ' || nullif(application_name, ''), '') as whose,
				'select pg_terminate_backend(' || pid || ')' as undo
			from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid() and state is not null
			union all
			select prepared, 'prepared, of ' || owner, 'rollback prepared ' || quote_literal(gid)
			from pg_prepared_xacts where database = current_database()
		) t where since is not null order by since limit 1`,
	unseen:    `select count(*) from pg_stat_activity where datname = current_database() and state is null and query = '<insufficient privilege>'`,
	unseenFix: "grant pg_read_all_stats to USER",
	oldHarm:   "while it is open vacuum removes no old version of a row, and the beats of every member leave one",
}
