-- Targets elsewhere, stores, foreign servers and user mappings, tasks with options and secrets. Everything is rolled back,
-- so that no engine acts on it.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
CREATE SCHEMA t;
GRANT USAGE ON SCHEMA t TO PUBLIC;
-- What a statement raises: SQLSTATE, message, detail and hint, or 'nothing'. Its effects are undone in any case.
CREATE FUNCTION t.raised(_statement TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _detail TEXT; _hint TEXT;
BEGIN
  EXECUTE _statement;
  RAISE SQLSTATE 'T0000';
EXCEPTION
  WHEN SQLSTATE 'T0000' THEN RETURN 'nothing';
  WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL, _hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(_detail, ''), nullif(_hint, ''));
END
$$;
-- The faults of a configuration.
CREATE FUNCTION t.faults(_configuration JSONB) RETURNS TEXT LANGUAGE sql AS $$
  SELECT coalesce(string_agg(f.path || ': ' || f.message, E'\n'), 'none') FROM async.configuration_faults(_configuration) f;
$$;
-- What was pushed: target, query, options.
CREATE FUNCTION t.pushed(_task_id BIGINT) RETURNS TEXT LANGUAGE sql AS $$
  SELECT concat_ws(' | ', k.target, k.query, k.options) FROM async.task k WHERE k.task_id = _task_id;
$$;
CREATE ROLE e_ann LOGIN IN ROLE flow_user;
CREATE ROLE e_bob LOGIN IN ROLE flow_user;
CREATE ROLE e_boss LOGIN IN ROLE flow_admin;

-- The kinds, and which follows from where a target leads.
DO $$
BEGIN
  ASSERT async.executor_kinds() @> ARRAY['postgres', 'clickhouse', 'http'];
  ASSERT async.kind_needs('postgres') = 'query_or_routine' AND async.kind_needs('clickhouse') = 'query'
     AND async.kind_needs('http') = 'options' AND async.kind_needs('local') = 'query_or_routine' AND async.kind_needs('external') IS NULL;
  CREATE SERVER pg_there FOREIGN DATA WRAPPER pgflow OPTIONS (host 'db.example.com', dbname 'd');
  CREATE SERVER house TYPE 'clickhouse' FOREIGN DATA WRAPPER pgflow OPTIONS (url 'https://house.example.com:8443');
  CREATE SERVER house_by_url FOREIGN DATA WRAPPER pgflow OPTIONS (url 'https://house.example.com:8443');
  PERFORM async.configure('{"targets": [
    {"target": "a", "connection_string": "host=db.example.com dbname=d user=u password=hunter2"},
    {"target": "b", "connection_string": "https://user:hunter2@house.example.com:8443/db"},
    {"target": "c", "connection_string": "clickhouse://user:hunter2@house.example.com:9000/db"},
    {"target": "d", "server": "house"}, {"target": "e", "server": "house_by_url"}, {"target": "f", "server": "pg_there", "kind": "postgres"},
    {"target": "g", "kind": "http", "options": {"base_url": "https://api.example.com/v1", "retry_delay": 0.5, "max_attempts": 3,
      "headers": {"Authorization": "Bearer ${token}", "X-Key": "hunter2", "Accept": "application/json"}, "give_up_after": "1 hour"}},
    {"target": "h", "connection_string": "host=localhost"}, {"target": "i"}, {"target": "j", "kind": "external"}]}');
  ASSERT (SELECT string_agg(target || ' ' || kind, ', ' ORDER BY target) FROM async.v_target)
    = 'a postgres, b clickhouse, c clickhouse, d clickhouse, e clickhouse, f postgres, g http, h local, i local, j external, local local',
    (SELECT string_agg(target || ' ' || kind, ', ' ORDER BY target) FROM async.v_target);
  -- What is left out stays, the kind that was said too.
  PERFORM async.configure(jsonb_build_object('targets', (SELECT jsonb_agg(jsonb_build_object('target', target)) FROM async.target)));
  ASSERT (SELECT string_agg(kind, ' ' ORDER BY target) FROM async.target)
    = 'postgres clickhouse clickhouse clickhouse clickhouse postgres http local local external local';
  ASSERT (SELECT options->>'max_attempts' = '3' FROM async.target WHERE target = 'g');
END
$$;

-- No credentials in views; nobody but admins reads the table.
SET LOCAL ROLE e_ann;
DO $$
DECLARE
  _shown TEXT := (SELECT string_agg(v::TEXT, E'\n') FROM async.v_target v);
BEGIN
  ASSERT _shown NOT LIKE '%hunter%' AND _shown LIKE '%Bearer ${token}%' AND _shown LIKE '%application/json%' AND _shown LIKE '%***%', _shown;
  ASSERT (SELECT options->>'base_url' = 'https://api.example.com/v1' AND server IS NULL AND owner = 'postgres'
            FROM async.v_target WHERE target = 'g'), _shown;
  ASSERT t.raised('SELECT options FROM async.target') LIKE '42501%';
  ASSERT t.raised('SELECT url FROM async.store') = 'nothing' AND t.raised('SELECT options FROM async.store') LIKE '42501%';
  ASSERT t.raised('SELECT * FROM async.connection_of(''a'', ''e_ann'')') LIKE '42501%';
  ASSERT t.raised('SELECT async.connection_fault(''a'', ''e_ann'')') LIKE '42501%';
  ASSERT t.raised('SELECT * FROM async.store_of(''a'')') LIKE '42501%';
  ASSERT t.raised('SELECT * FROM async.mapping_options(''house'', ''e_ann'')') LIKE '42501%';
  ASSERT t.raised('SELECT * FROM async.task_secret') LIKE '42501%';
  ASSERT t.raised('SELECT async.drop_store(''a'')') LIKE '42501%';
END
$$;
RESET ROLE;

-- What masking keeps and what it hides.
DO $$
DECLARE
  _masked JSONB := async.masked_options('{"password": "x", "Secret_Key": 7, "sas_token": ["a", "b"], "url": "https://u:p@h/x?token=abc&n=1",
    "plain": "https://h/x", "list": [{"api_key": "k"}], "n": 3, "yes": true, "nothing": null, "access_key": {"id": "k", "n": 5},
    "headers": {"X-Any": "v", "Content-Type": "text/plain", "Auth": "${auth}"}, "settings": {"max_threads": 8}}');
BEGIN
  ASSERT _masked = '{"password": "***", "Secret_Key": "***", "sas_token": ["***", "***"], "url": "https://u:***@h/x?token=***&n=1",
    "plain": "https://h/x", "list": [{"api_key": "***"}], "n": 3, "yes": true, "nothing": null, "access_key": {"id": "***", "n": "***"},
    "headers": {"X-Any": "***", "Content-Type": "text/plain", "Auth": "${auth}"}, "settings": {"max_threads": 8}}', _masked;
  ASSERT async.masked_options(NULL) IS NULL AND async.masked_options('"hi"') = '"hi"';
END
$$;

-- Faults, all at once, with their places and without secrets.
DO $$
DECLARE
  _faults TEXT := t.faults('{"targets": [
    {"target": "a", "kind": "oracle"}, {"target": "b", "kind": "clickhouse", "server": "nowhere"}, {"target": "c", "server": "pg_there", "connection_string": null},
    {"target": "d", "kind": "local", "server": "house"}, {"target": "e", "kind": "external", "options": {"x": 1}}, {"target": "f", "kind": "http", "connection_string": null, "server": null},
    {"target": "g", "options": {"base_url": "https://h", "connect_timeout": "soon", "max_attempts": 0, "give_up_after": "-1 s", "retry_delay": 0, "retry_delay_max": []}},
    {"target": "k", "kind": "clickhouse", "server": "house", "options": {"tiers": {"slow": {"target": "nothing"}, "fast": {"target": "d"}}}},
    {"target": "l", "options": "hunter2"}, {"target": "m", "server": 7}, {"target": "n", "connection_string": "hunter2"}],
    "stores": [{"store": "s"}, {"store": "x", "url": "s3://key:hunter2@bucket/p"}, {"store": "y", "url": "ftp://h"}, {"store": "y", "url": "hunter2"},
      {"url": "s3://b"}, {"store": "z", "url": "s3://b", "server": "nowhere", "keep_for": "soon", "optoins": {}}]}');
BEGIN
  ASSERT _faults NOT LIKE '%hunter%', _faults;
  ASSERT _faults LIKE '%$.targets[0].kind: must be "local", "external", "postgres", "clickhouse", "http", not "oracle"%', _faults;
  ASSERT _faults LIKE '%$.targets[1].server: there is no such foreign server%', _faults;
  ASSERT _faults LIKE '%$.targets[2].kind: must be given: the foreign server does not say%', _faults;
  ASSERT _faults LIKE '%$.targets[3].server: a target of kind "local" has none%', _faults;
  ASSERT _faults LIKE '%$.targets[4].options: a target of kind "external" has none%', _faults;
  ASSERT _faults LIKE '%$.targets[6].options.connect_timeout: must be a positive number of seconds%', _faults;
  ASSERT _faults LIKE '%$.targets[6].options.max_attempts: must be a whole number%', _faults;
  ASSERT _faults LIKE '%$.targets[6].options.give_up_after: must be longer than nothing%', _faults;
  ASSERT _faults LIKE '%$.targets[6].options.retry_delay: %$.targets[6].options.retry_delay_max: %', _faults;
  ASSERT _faults LIKE '%$.targets[7].options.tiers.slow.target: there is no such target%' AND _faults NOT LIKE '%tiers.fast%', _faults;
  ASSERT _faults LIKE '%$.targets[8].options: must be an object, not string%', _faults;
  ASSERT _faults LIKE '%$.targets[9].server: must be a name%', _faults;
  ASSERT _faults LIKE '%$.targets[10].connection_string: must be a connection string%', _faults;
  ASSERT _faults LIKE '%$.stores[0]: has no "url"%$.stores[1].url: %$.stores[2].url: %$.stores[3].url: %$.stores[5].server: %', _faults;
  ASSERT _faults LIKE '%$.stores[3]: "y" is here more than once%' AND _faults LIKE '%$.stores[4]: has no "store"%', _faults;
  ASSERT _faults LIKE '%$.stores[5].optoins: there is no such key; did you mean "options"?%$.stores%', _faults;
  ASSERT t.raised('SELECT async.configure(''{"targets": [{"target": "q", "kind": "http"}]}'')') LIKE '22023 %a target of kind "http" needs a connection_string or a server%';
END
$$;

-- A worked example of foreign servers: roles have credentials of their own, else PUBLIC's; the mapping wins over the server.
DO $$
DECLARE
  _found RECORD;
BEGIN
  CREATE SERVER ledger FOREIGN DATA WRAPPER pgflow OPTIONS (host 'ledger.example.com', dbname 'ledger', sslmode 'require', "user" 'nobody');
  CREATE USER MAPPING FOR e_ann SERVER ledger OPTIONS (user 'ann_there', password 'hunter2');
  PERFORM async.configure('{"targets": [{"target": "ledger", "kind": "postgres", "server": "ledger", "options": {"inbox": "off"}},
    {"target": "plain", "connection_string": "host=db.example.com password=hunter2"}]}');
  SELECT * INTO _found FROM async.connection_of('ledger', 'e_ann');
  ASSERT _found.connection_options = '{"host": "ledger.example.com", "dbname": "ledger", "sslmode": "require", "user": "ann_there", "password": "hunter2"}'
     AND _found.connection_string IS NULL AND _found.kind = 'postgres' AND _found.options = '{"inbox": "off"}' AND NOT _found.password_required, _found;
  ASSERT async.connection_fault('ledger', 'e_ann') IS NULL;
  ASSERT t.raised('SELECT * FROM async.connection_of(''ledger'', ''e_bob'')')
    = '42704 role "e_bob" has no user mapping for foreign server "ledger" | CREATE USER MAPPING FOR e_bob SERVER ledger OPTIONS (…); or one FOR PUBLIC.';
  ASSERT async.connection_fault('ledger', 'e_bob') LIKE 'role "e_bob" has no user mapping for foreign server "ledger"%CREATE USER MAPPING FOR e_bob%';
  CREATE USER MAPPING FOR PUBLIC SERVER ledger OPTIONS (user 'all', password 'hunter3');
  ASSERT (SELECT connection_options->>'user' FROM async.connection_of('ledger', 'e_bob')) = 'all';
  ASSERT (SELECT connection_options->>'user' FROM async.connection_of('ledger', 'e_ann')) = 'ann_there';
  ASSERT (SELECT connection_options->>'user' FROM async.connection_of('ledger', 'gone')) = 'all';
  ASSERT (SELECT connection_string LIKE '%hunter2' AND connection_options = '{}' AND NOT password_required FROM async.connection_of('plain', 'e_bob'));
  -- A mapping says who somebody is; where the server is, only the server says.
  ALTER USER MAPPING FOR e_ann SERVER ledger OPTIONS (ADD hostaddr '10.0.0.1');
  ASSERT async.connection_fault('ledger', 'e_ann') LIKE '%has option "hostaddr", which is not a credential%';
  ALTER USER MAPPING FOR e_ann SERVER ledger OPTIONS (DROP hostaddr, ADD "URL" 'http://elsewhere.example.com');
  ASSERT async.connection_fault('ledger', 'e_ann') LIKE '%"URL", which is not a credential%';
  ALTER USER MAPPING FOR e_ann SERVER ledger OPTIONS (DROP "URL");
  ASSERT async.connection_fault('ledger', 'e_ann') IS NULL;
  -- What is missing.
  ASSERT t.raised('SELECT * FROM async.connection_of(''nothing'', ''e_bob'')') LIKE '42704 target "nothing" does not exist |%';
  ASSERT async.connection_fault('nothing', 'e_bob') LIKE 'target "nothing" does not exist%' AND async.connection_fault(NULL, NULL) IS NOT NULL;
  -- The server's owner is no superuser: he could lead it to this very machine.
  ALTER SERVER ledger OWNER TO e_boss;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE;
END
$$;
DO $$
BEGIN
  ASSERT (SELECT password_required FROM async.connection_of('ledger', 'e_ann'));
  ALTER SERVER ledger OWNER TO postgres;
  DROP SERVER ledger CASCADE;
  ASSERT t.raised('SELECT * FROM async.connection_of(''ledger'', ''e_ann'')') LIKE '42704 foreign server "ledger" of target "ledger" does not exist%';
END
$$;

-- Who owns a target: whoever makes it lead somewhere.
CREATE SERVER secret_server FOREIGN DATA WRAPPER pgflow OPTIONS (url 'https://house.example.com');
GRANT USAGE ON FOREIGN SERVER house TO e_boss;
SET LOCAL ROLE e_boss;
DO $$
BEGIN
  ASSERT t.raised('SELECT async.configure(''{"targets": [{"target": "x", "kind": "clickhouse", "server": "secret_server"}]}'')')
    LIKE '22023 %$.targets[0].server: role "e_boss" may not use this server: GRANT USAGE ON FOREIGN SERVER%';
  PERFORM async.configure('{"targets": [{"target": "plain", "max_concurrency": 3}, {"target": "other", "server": "house"}]}');
  ASSERT (SELECT owner = 'postgres' AND max_concurrency = 3 FROM async.v_target WHERE target = 'plain');
  ASSERT (SELECT owner = 'e_boss' FROM async.v_target WHERE target = 'other');
  PERFORM async.configure('{"targets": [{"target": "plain", "connection_string": "host=db2.example.com password=hunter2"}, {"target": "other"}]}');
  ASSERT (SELECT owner = 'e_boss' FROM async.v_target WHERE target = 'plain');
END
$$;
RESET ROLE;
DO $$
BEGIN
  ASSERT (SELECT password_required FROM async.connection_of('plain', 'e_ann'));
  PERFORM async.configure('{"targets": [{"target": "plain", "default_timeout": "1 hour"}, {"target": "other"}]}');
  ASSERT (SELECT owner = 'e_boss' FROM async.target WHERE target = 'plain'), 'a superuser who changes something else vouches for nothing';
  PERFORM async.configure('{"targets": [{"target": "plain", "options": {"inbox": "auto"}}, {"target": "other"}]}');
  ASSERT (SELECT owner = 'postgres' FROM async.target WHERE target = 'plain');
  UPDATE async.target SET owner = 'vanished' WHERE target = 'plain';
  ASSERT (SELECT password_required FROM async.connection_of('plain', 'e_ann'));
END
$$;

-- Stores.
DO $$
DECLARE
  _id BIGINT;
BEGIN
  CREATE SERVER minio FOREIGN DATA WRAPPER pgflow OPTIONS (endpoint 'http://s3.example.com', region 'x');
  CREATE USER MAPPING FOR PUBLIC SERVER minio OPTIONS (access_key_id 'all', secret_access_key 'hunter3');
  PERFORM async.configure('{"stores": [{"store": "files", "url": "file:///tmp/results"},
    {"store": "results", "url": "s3://bucket/prefix", "server": "minio", "options": {"region": "here", "allow_http": true, "token": "hunter2"}, "keep_for": "90 days"}]}');
  ASSERT (SELECT url = 's3://bucket/prefix' AND options = '{"endpoint": "http://s3.example.com", "region": "here", "allow_http": "true",
      "token": "hunter2", "access_key_id": "all", "secret_access_key": "hunter3"}' FROM async.store_of('results')),
    (SELECT options FROM async.store_of('results'));
  CREATE USER MAPPING FOR postgres SERVER minio OPTIONS (access_key_id 'mine', secret_access_key 'hunter4');
  ASSERT (SELECT options->>'access_key_id' = 'mine' FROM async.store_of('results'));
  ASSERT (SELECT options = '{}' FROM async.store_of('files'));
  ASSERT t.raised('SELECT * FROM async.store_of(''attic'')') LIKE '42704 store "attic" does not exist%';
  ASSERT (SELECT string_agg(v::TEXT, '') NOT LIKE '%hunter%' AND string_agg(v::TEXT, '') LIKE '%allow_http%' FROM async.v_store v);
  -- In use while results are there, or are to be.
  PERFORM async.configure('{"targets": [{"target": "house", "server": "house", "options": {"tiers": {"slow": {"target": "second"}, "both": {"target": "second"}}}},
    {"target": "second", "server": "house", "options": {"tiers": {"both": {}}}}, {"target": "web", "kind": "http", "options": {"base_url": "https://h"}}]}');
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, store) VALUES (7, 1, 'postgres', 'object', 'files');
  ASSERT t.raised('SELECT async.drop_store(''files'')') LIKE '55006 store "files" is in use | It is needed by 1 result that is kept there.%';
  ASSERT t.raised('SELECT async.configure(''{"stores": [{"store": "results"}]}'')') LIKE '22023 %$.stores: leaves out store "files", which is in use%';
  DELETE FROM async.result;
  _id := async.push_query('house', 'SELECT 1', _result => '{"to": "object", "store": "files", "format": "csv"}');
  ASSERT t.raised('SELECT async.drop_store(''files'')') LIKE '55006 %1 open task (' || _id || ')%';
  PERFORM async.cancel(ARRAY[_id]);
  PERFORM async.configure('{"stores": [{"store": "results"}]}');
  ASSERT (SELECT count(*) = 1 AND bool_and(keep_for = '90 days') FROM async.store);
  PERFORM async.drop_store('results');
  ASSERT t.raised('SELECT async.drop_store(''results'')') LIKE '42704 there is no store "results"%';
END
$$;

-- Tasks with options.
SET LOCAL ROLE e_ann;
DO $$
DECLARE
  _id   BIGINT := async.push_query('house', 'SELECT {a:Int32}, {b:String}', '{"a": 1}', '{"max_threads": 2}', _result => '"inline"',
                                   _secrets => '{"b": "hunter2"}', _priority => -3, _timeout => '1 minute', _task_data => '{"c": 1}');
  _task async.task;
  _text TEXT;
BEGIN
  SELECT * INTO _task FROM async.task WHERE task_id = _id;
  ASSERT _task.run_as = 'e_ann' AND _task.target = 'house' AND _task.priority = -3 AND _task.manual_timeout = '1 minute'
     AND _task.task_data = '{"c": 1}' AND _task.intention = 0 AND _task.unsure_since IS NULL
     AND _task.options = '{"parameters": {"a": 1}, "settings": {"max_threads": 2}, "result": "inline"}', _task;
  ASSERT (SELECT string_agg(v::TEXT, '') NOT LIKE '%hunter%' FROM async.v_task v WHERE v.task_id = _id);
  -- A tier that names another target pushes there.
  ASSERT t.pushed(async.push_query('house', 'SELECT 1', _tier => 'slow')) = 'second | SELECT 1';
  ASSERT t.pushed(async.push_query('house', 'SELECT 1', _tier => 'both')) = 'second | SELECT 1 | {"tier": "both"}';
  ASSERT t.pushed(async.push_query('house', 'SELECT 1', _tier => '')) = 'house | SELECT 1';
  ASSERT t.pushed(async.push_query(NULL, 'SELECT 1', _result => '"inline"')) = 'local | SELECT 1 | {"result": "inline"}';
  ASSERT t.pushed(async.push_request('web', '{"path": "/x"}')) = 'web | {"request": {"path": "/x"}}';
  ASSERT t.pushed(async.push_task(async.task('SELECT 1', 'house'))) = 'house | SELECT 1';
  -- What is refused.
  ASSERT t.raised('SELECT async.push_query(''nothing'', ''SELECT 1'')') LIKE '42704 there is no target "nothing"%';
  ASSERT t.raised('SELECT async.push_query(''house'', ''SELECT 1'', _tier => ''fast'')') LIKE '22023 target "house" has no tier "fast"%';
  ASSERT t.raised('SELECT async.push_query(''web'', ''SELECT 1'')') LIKE '42809 target "web" takes no query%async.push_request%';
  ASSERT t.raised('SELECT async.push_request(''house'', ''{}'')') LIKE '42809 target "house" takes no request%async.push_query%';
  ASSERT t.raised('SELECT async.push_task(async.task(''SELECT 1'', ''web''))') LIKE '22023 %runs no query: async.push_request%';
  ASSERT t.raised('SELECT async.push_query(''local'', ''SELECT 1'', _secrets => ''{"a": "hunter2"}'')') LIKE '22023 %tasks of this database have none%';
  ASSERT t.raised('SELECT async.push_query(''local'', ''SELECT 1'', ''{"a": 1}'')') LIKE '22023 %parameters: %local database%';
  _text := t.raised('SELECT async.push_query(''house'', '' ; '', ''[]'', _result => ''{"to": "object", "store": "attic"}'', _secrets => ''{"a b": "hunter2"}'', _timeout => ''0'')');
  ASSERT _text LIKE '22023 the query cannot be pushed | %parameters: %result: "format" is missing%result.store: store "attic" does not exist%secrets must be plain values%the query is empty%the time-out is%', _text;
  ASSERT _text NOT LIKE '%hunter%', _text;
  ASSERT t.raised(format('SELECT async.push_query(''house'', ''SELECT 1'', _secrets => %L)', jsonb_build_object('a', repeat('x', 66000))))
    LIKE '22023 %secrets are more than 64 kB';
  ASSERT t.raised('SELECT async.push_query(''house'', ''SELECT 1'', _secrets => ''["hunter2"]'')') LIKE '22023 %secrets must be an object%';
END
$$;
RESET ROLE;

-- Secrets go when the task ends, however; a restart is a new intention.
DO $$
DECLARE
  _ids  BIGINT[];
  _task async.task;
BEGIN
  _ids := ARRAY(SELECT async.push_query('house', 'SELECT 1', _secrets => '{"b": "hunter2"}') FROM generate_series(1, 5));
  ASSERT (SELECT count(*) = 5 AND bool_and(secrets = '{"b": "hunter2"}') FROM async.task_secret WHERE task_id = ANY (_ids));
  PERFORM async.cancel(_ids[1:1]);
  PERFORM async.finish(_ids[2:2], 'FINISHED', NULL);
  PERFORM async.end_tasks(_ids[3:3], 'TIMED_OUT', 'x');
  PERFORM async.lose_attempts(_ids[4:4], ARRAY[1], ARRAY[true], false, 'x', 1);
  ASSERT (SELECT array_agg(task_id) = _ids[5:5] FROM async.task_secret WHERE task_id = ANY (_ids));
  PERFORM async.yield_tasks('postgres'::REGROLE::OID, _ids[5:5]);
  ASSERT (SELECT count(*) = 1 FROM async.task_secret WHERE task_id = ANY (_ids)), 'a task that goes on keeps them';
  PERFORM flow.delete_tasks(_ids[5:5]);
  ASSERT (SELECT count(*) = 0 FROM async.task_secret WHERE task_id = ANY (_ids));
  UPDATE async.task SET unsure_since = 1 WHERE task_id = _ids[1];
  PERFORM async.restart_task(_ids[1]);
  SELECT * INTO _task FROM async.task WHERE task_id = _ids[1];
  ASSERT _task.intention = 1 AND _task.unsure_since IS NULL AND _task.processed IS NULL;
  _ids := ARRAY[async.push_request('web', '{"path": "/x"}')];
  PERFORM async.cancel(_ids);
  PERFORM async.restart_task(_ids[1]);
  ASSERT (SELECT intention = 1 AND processed IS NULL FROM async.task WHERE task_id = _ids[1]);
END
$$;

-- An adopted copy is another engine; adopting where one is changes nothing.
DO $$
DECLARE
  _id UUID := (SELECT engine_id FROM async.engine_state);
BEGIN
  PERFORM async.adopt();
  PERFORM async.adopt();
  ASSERT (SELECT engine_id = _id FROM async.engine_state);
  UPDATE async.engine_state SET database_oid = 1;
  PERFORM async.adopt();
  ASSERT (SELECT engine_id <> _id FROM async.engine_state) AND async.adopted();
END
$$;
ROLLBACK;
