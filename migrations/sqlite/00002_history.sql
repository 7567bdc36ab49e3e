-- +goose Up
-- The fingerprint of the database's history and a number drawn for it, negative in
-- quarantine, 0 before there is one; the revision with which it began; and what every new
-- token is above.
insert into coordd_meta (name, value, text)
values ('history', 0, ''), ('history_since', 0, ''), ('token_floor', 0, '');

-- +goose Down
delete from coordd_meta where name in ('history', 'history_since', 'token_floor');
