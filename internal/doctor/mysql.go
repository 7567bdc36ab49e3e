package doctor

// What MySQL and MariaDB are asked alike.
var mysqlFamily = words{
	version: `select version()`,

	cipher: `show session status like 'Ssl_cipher'`,

	readOnly: `select case when concat(@@global.read_only, '') not in ('0', 'OFF') then 'read_only is set' else '' end,
		'connect to the primary; or, if this is it: set global read_only = 0'`,

	user: `select concat('''', replace(current_user(), '@', '''@'''), '''')`,

	levels: map[string]Verdict{"repeatable read": OK, "read committed": OK, "read uncommitted": Failed},

	lossy: `select 'innodb_flush_log_at_trx_commit', @@global.innodb_flush_log_at_trx_commit, 'set global innodb_flush_log_at_trx_commit = 1, and in the server''s configuration'
		from dual where @@global.innodb_flush_log_at_trx_commit <> 1
		union all select 'sync_binlog', @@global.sync_binlog, 'set global sync_binlog = 1, and in the server''s configuration'
		from dual where @@global.log_bin and @@global.sync_binlog <> 1`,

	process: `select connection_id()`,

	prepared: `show session status like 'Com_stmt_prepare'`,

	// The times of innodb_trx are the server's and not those of the session's time zone.
	oldTransaction: `select timestampdiff(microsecond, trx_started, convert_tz(sysdate(6), @@session.time_zone, 'SYSTEM')) / 1e6,
			concat(lower(trx_state), ', of connection ', trx_mysql_thread_id, ', ', trx_rows_modified, ' rows changed'),
			concat('kill ', trx_mysql_thread_id)
		from information_schema.innodb_trx where trx_mysql_thread_id <> connection_id() order by trx_started limit 1`,
	unseenFix: "grant process on *.* to USER",
	oldHarm:   "while it is open InnoDB removes no old version of a row, and the beats of every member leave one",
}

var mysql = func() words {
	w := mysqlFamily
	w.oldest, w.oldestName = []int{8, 0}, "MySQL 8.0"
	w.isolation = `select @@session.transaction_isolation`
	w.isolationFix = "add transaction_isolation='READ-COMMITTED' to the DSN's parameters, percent-encoded, or set it for the server"
	w.bounded = `select @@session.max_execution_time > 0`
	w.room = `select variable_value, @@global.max_connections from performance_schema.global_status where variable_name = 'Threads_connected'`
	return w
}()

var mariadb = func() words {
	w := mysqlFamily
	w.proof, w.oldestName = `select @@server_uid`, "MariaDB 10.6.19, 10.11.9 or 11.4.3"
	w.isolation = `select @@session.tx_isolation`
	w.isolationFix = "add tx_isolation='READ-COMMITTED' to the DSN's parameters, percent-encoded, or set it for the server"
	w.bounded = `select @@session.max_statement_time > 0`
	w.room = `select variable_value, @@global.max_connections from information_schema.global_status where variable_name = 'Threads_connected'`
	return w
}()
