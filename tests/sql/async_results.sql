-- Results: recording, reading by their roles only, and what becomes of them. Rolled back; what the dispatcher would call is
-- called by hand, and nothing is deleted in a store.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
CREATE ROLE h_ann LOGIN IN ROLE flow_user;
CREATE ROLE h_bob LOGIN IN ROLE flow_user;
CREATE ROLE h_mon LOGIN IN ROLE flow_monitor;
CREATE TEMP TABLE pushed (n INT, id BIGINT);
GRANT ALL ON pushed TO PUBLIC;
CREATE SCHEMA theirs;
GRANT USAGE ON SCHEMA theirs TO h_ann, h_bob;
CREATE TABLE theirs."odd ""name" (r INT, t TEXT);
INSERT INTO theirs."odd ""name" SELECT i, 'row ' || i FROM generate_series(1, 5) AS i;
GRANT SELECT ON theirs."odd ""name" TO h_ann;
INSERT INTO async.target (target, kind) VALUES ('robots', 'external');
INSERT INTO async.store (store, url, keep_for) VALUES ('shelf', 'file:///nowhere/shelf', '3 days'), ('old', 's3://bucket/old/', NULL);
SET LOCAL ROLE h_ann;
INSERT INTO pushed SELECT row_number() OVER (), i
  FROM async.push_tasks(array_fill(async.task(NULL, 'robots'), ARRAY[12])) AS i;
RESET ROLE;

-- The caller's errors, by name.
CREATE FUNCTION pg_temp.error_of(_statement TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _state TEXT; _message TEXT; _hint TEXT;
BEGIN
  EXECUTE _statement;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS _state = RETURNED_SQLSTATE, _message = MESSAGE_TEXT, _hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(' ', _state, _message, _hint);
END
$$;
CREATE FUNCTION pg_temp.task(_n INT) RETURNS BIGINT LANGUAGE sql STABLE AS $$ SELECT id FROM pushed WHERE n = _n $$;
CREATE FUNCTION pg_temp.an_object(_path TEXT, _more JSONB DEFAULT '{}') RETURNS JSONB LANGUAGE sql AS $$
  SELECT jsonb_build_object('kept_as', 'object', 'store', 'shelf', 'path', _path, 'location', 'file:///nowhere/shelf/' || _path,
    'format', 'json', 'compression', 'gzip', 'rows', 2, 'bytes', 20, 'content', NULL) || _more $$;

DO $$
BEGIN
  PERFORM async.record_result(pg_temp.task(1), 1, '{"kept_as": "inline", "rows": 3, "bytes": 30,
    "meta": [{"name": "a", "type": "UInt8", "shape": "int"}], "content": [{"a": 1}, {"a": 2}, {"a": 3}], "keep_for": "2 hours"}');
  PERFORM async.record_result(pg_temp.task(2), 1, '{"kept_as": "table", "location": "theirs.\"odd \"\"name\"", "rows": 5}');
  PERFORM async.record_result(pg_temp.task(3), 1, pg_temp.an_object('a/3-1.json.gz'));
  PERFORM async.record_result(pg_temp.task(4), 1, '{"kept_as": "none"}');
  ASSERT (SELECT array_agg(kept_as ORDER BY task_id) FROM async.result) = '{inline,table,object}';
  ASSERT (SELECT expires - created FROM async.result WHERE task_id = pg_temp.task(1)) = INTERVAL '2 hours', 'its own time';
  ASSERT (SELECT expires - created FROM async.result WHERE task_id = pg_temp.task(3)) = INTERVAL '3 days', 'that of its store';
  ASSERT (SELECT expires IS NULL FROM async.result WHERE task_id = pg_temp.task(2)), 'with its task';
END
$$;

-- Their role reads them; whose table it is decides about tables.
SET LOCAL ROLE h_ann;
DO $$
BEGIN
  ASSERT (SELECT array_agg(kind_of_result ORDER BY task_id) FROM async.v_result) = '{inline,table,object}';
  ASSERT (SELECT array_agg(f) FROM async.fetch_result(pg_temp.task(1)) f) = ARRAY['{"a": 1}', '{"a": 2}', '{"a": 3}']::JSONB[];
  ASSERT (SELECT array_agg(f) FROM async.fetch_result(pg_temp.task(1), 1, 1) f) = ARRAY['{"a": 2}']::JSONB[];
  ASSERT NOT EXISTS (SELECT FROM async.fetch_result(pg_temp.task(1), 0));
  ASSERT NOT EXISTS (SELECT FROM async.fetch_result(pg_temp.task(1), NULL, 3));
  ASSERT (SELECT array_agg(f) FROM async.fetch_result(pg_temp.task(2), 2, 3) f)
       = ARRAY['{"r": 4, "t": "row 4"}', '{"r": 5, "t": "row 5"}']::JSONB[];
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(1), -1)') LIKE '22023 _limit is -1%';
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(4))') LIKE '42704 there is no result of task %';
  ASSERT pg_temp.error_of('SELECT async.result_url(pg_temp.task(1))') LIKE '55000 % is kept as "inline", not in a store %';
  ASSERT pg_temp.error_of('SELECT async.result_url(pg_temp.task(4))') LIKE '42704 there is no result of task %';
  ASSERT pg_temp.error_of('SELECT async.result_url(pg_temp.task(3), ''0 s'')') LIKE '22023 %';
  ASSERT pg_temp.error_of('SELECT async.drop_result(pg_temp.task(4))') LIKE '42704 %';
END
$$;

-- Another one neither sees, reads nor drops them; a monitor reads, but drops nothing, and reads no table of theirs.
SET LOCAL ROLE h_bob;
DO $$
DECLARE
  _call TEXT;
BEGIN
  ASSERT NOT EXISTS (SELECT FROM async.v_result) AND NOT EXISTS (SELECT FROM async.result);
  FOREACH _call IN ARRAY ARRAY['fetch_result', 'result_url', 'drop_result'] LOOP
    ASSERT pg_temp.error_of(format('SELECT async.%I(pg_temp.task(3))', _call)) LIKE '42704 there is no result of task %', _call;
    ASSERT pg_temp.error_of(format('SELECT async.%I(pg_temp.task(1))', _call)) LIKE '42704 there is no result of task %', _call;
  END LOOP;
  ASSERT pg_temp.error_of('SELECT async.read_stored(pg_temp.task(3), NULL, 0)') LIKE '42704 %';
  FOREACH _call IN ARRAY ARRAY['record_result(1, 1, ''{}'')', 'discard_result(1, 1, ''{}'')', 'expire_results(1)',
    'results_deleted(''{}'')', 'resume_deletions()', 'forget_tasks(''{}'')', 'stored_result_for(10, 1)',
    'read_stored_as(10, 1, 1, 0)', 'result_url_as(10, 1, ''1 h'')', 'drop_result_as(10, 1)'] LOOP
    ASSERT pg_temp.error_of('SELECT async.' || _call) LIKE '42501 %', _call;
  END LOOP;
  ASSERT pg_temp.error_of('DELETE FROM async.result') LIKE '42501 %';
END
$$;
SET LOCAL ROLE h_mon;
DO $$
BEGIN
  ASSERT (SELECT count(*) FROM async.v_result) = 3;
  ASSERT (SELECT count(*) FROM async.fetch_result(pg_temp.task(1))) = 3;
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(2))') LIKE '42501 permission denied for schema theirs%'
      OR pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(2))') LIKE '42501 permission denied for table%';
  ASSERT pg_temp.error_of('SELECT async.drop_result(pg_temp.task(1))') LIKE '42501 %';
END
$$;
RESET ROLE;

-- A later attempt: the object of the one before is deleted, unless it was written over. A late report of an earlier one
-- changes nothing, but its object is deleted too.
DO $$
DECLARE
  _gone RECORD;
BEGIN
  PERFORM async.record_result(pg_temp.task(3), 2, pg_temp.an_object('a/3-2.json.gz'));
  PERFORM async.record_result(pg_temp.task(3), 1, pg_temp.an_object('a/3-1b.json.gz'));
  PERFORM async.record_result(pg_temp.task(3), 3, pg_temp.an_object('a/3-2.json.gz', '{"rows": 7}'));
  ASSERT (SELECT (path, attempt, rows, state) = ('a/3-2.json.gz', 3, 7, 'kept') FROM async.result WHERE task_id = pg_temp.task(3));
  ASSERT (SELECT count(*) FROM async.v_result) = 3, 'what is replaced does not show';
  ASSERT (SELECT array_agg(path ORDER BY path) FROM async.expire_results(10) WHERE task_id < 0 AND store = 'shelf')
       = '{a/3-1.json.gz,a/3-1b.json.gz}';
  ASSERT NOT EXISTS (SELECT FROM async.expire_results(10)), 'each is handed out once';
  -- Nobody has said that they are gone: after a restart, or a while, they are handed out again.
  PERFORM async.results_not_deleted(ARRAY(SELECT task_id FROM async.result WHERE task_id < 0), '{away,away}');
  ASSERT (SELECT count(*) FROM async.server_log WHERE message LIKE '%could not be deleted%a/3-1%: away') = 2;
  PERFORM async.resume_deletions();
  SELECT array_agg(task_id) AS ids, count(*) AS n INTO _gone FROM async.expire_results(10);
  ASSERT _gone.n = 2;
  PERFORM async.results_deleted(_gone.ids);
  PERFORM async.results_deleted(_gone.ids);
  ASSERT NOT EXISTS (SELECT FROM async.result WHERE task_id < 0);
END
$$;

-- Another task writes over it: the object is that one's alone, and is deleted when that one is over.
DO $$
BEGIN
  PERFORM async.record_result(pg_temp.task(5), 1, pg_temp.an_object('latest.json', '{"keep_for": "1 hour"}'));
  PERFORM async.record_result(pg_temp.task(6), 1, pg_temp.an_object('latest.json', '{"keep_for": "2 hours"}'));
  ASSERT (SELECT state FROM async.result WHERE task_id = pg_temp.task(5)) = 'gone';
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(5))') LIKE '55000 % is gone: another task has written %';
  UPDATE async.result SET expires = now() WHERE task_id = pg_temp.task(5);
  ASSERT NOT EXISTS (SELECT FROM async.expire_results(10));
  ASSERT NOT EXISTS (SELECT FROM async.result WHERE task_id = pg_temp.task(5));
  -- While it is being deleted somebody writes there again: it is not deleted a second time.
  UPDATE async.result SET expires = now() WHERE task_id = pg_temp.task(6);
  ASSERT (SELECT count(*) FROM async.expire_results(10)) = 1;
  PERFORM async.record_result(pg_temp.task(7), 1, pg_temp.an_object('latest.json'));
  PERFORM async.resume_deletions();
  ASSERT NOT EXISTS (SELECT FROM async.expire_results(10));
  PERFORM async.results_deleted(ARRAY[pg_temp.task(6), pg_temp.task(7)]);
  ASSERT (SELECT state FROM async.result WHERE task_id = pg_temp.task(7)) = 'kept';
  -- Rows that say the same all the same, through another name of the place too: the last one that is over deletes it.
  INSERT INTO async.store (store, url) VALUES ('upper', 'file:///nowhere');
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, expires) VALUES
    (pg_temp.task(8), 1, 'h_bob', 'object', 'shelf', 'twice.csv', 'file:///nowhere/shelf/twice.csv', now()),
    (pg_temp.task(9), 1, 'h_ann', 'object', 'shelf', 'twice.csv', 'file:///nowhere/shelf/twice.csv', now() - INTERVAL '1 s'),
    (pg_temp.task(10), 1, 'h_ann', 'export', 'upper', 'shelf/twice.csv', 'file:///nowhere/shelf/twice.csv', now() + INTERVAL '1 day');
  ASSERT NOT EXISTS (SELECT FROM async.expire_results(10)), 'somebody keeps it';
  UPDATE async.result SET expires = now() WHERE task_id = pg_temp.task(10);
  ASSERT (SELECT array_agg(task_id) FROM async.expire_results(10)) = ARRAY[pg_temp.task(10)];
  ASSERT NOT EXISTS (SELECT FROM async.result WHERE task_id IN (pg_temp.task(8), pg_temp.task(9)));
END
$$;

-- A store that leads elsewhere now, or is gone: nothing there is touched or shown.
DO $$
BEGIN
  PERFORM async.record_result(pg_temp.task(11), 1, '{"kept_as": "export", "store": "old", "path": "x.csv",
    "location": "s3://bucket/old/x.csv", "format": "csv"}');
  UPDATE async.store SET url = 's3://another/old' WHERE store = 'old';
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(11))') LIKE '55000 % is not in store "old" any more %';
  ASSERT pg_temp.error_of('SELECT async.result_url(pg_temp.task(11))') LIKE '55000 % is not in store "old" any more %';
  UPDATE async.result SET expires = now() WHERE task_id = pg_temp.task(11);
  ASSERT NOT EXISTS (SELECT FROM async.expire_results(10));
  ASSERT EXISTS (SELECT FROM async.server_log WHERE message LIKE 'the object of a result was left where it is: s3://bucket/old/x.csv%');
END
$$;

-- What reading a table would execute, its reader must trust: plain tables only, unless he is of the role.
GRANT CREATE ON SCHEMA theirs TO h_ann, h_bob;
GRANT USAGE ON SCHEMA theirs TO h_mon;
CREATE ROLE h_own LOGIN IN ROLE flow_user, h_ann;
CREATE ROLE h_adm LOGIN IN ROLE flow_admin;
GRANT USAGE ON SCHEMA theirs TO h_own, h_adm;
SET LOCAL ROLE h_ann;
CREATE FUNCTION theirs.spy() RETURNS BOOL LANGUAGE plpgsql AS $$ BEGIN RAISE 'executed by %', current_user; END $$;
CREATE TABLE theirs.plain AS SELECT 1 AS a;
CREATE VIEW theirs.seen AS SELECT a, theirs.spy() FROM theirs.plain;
CREATE TABLE theirs.guarded AS SELECT 1 AS a;
ALTER TABLE theirs.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY spies ON theirs.guarded USING (theirs.spy());
CREATE TYPE theirs.kind AS ENUM ('one');
CREATE FUNCTION theirs.as_json(theirs.kind) RETURNS JSON LANGUAGE plpgsql AS $$ BEGIN PERFORM theirs.spy(); END $$;
CREATE CAST (theirs.kind AS JSON) WITH FUNCTION theirs.as_json(theirs.kind);
CREATE TABLE theirs.typed AS SELECT 'one'::theirs.kind AS k;
GRANT SELECT ON ALL TABLES IN SCHEMA theirs TO h_mon, h_own, h_adm;
RESET ROLE;
CREATE FUNCTION pg_temp.fetched(_table TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  RETURN pg_temp.error_of(format('SELECT async.fetch_result(task_id) FROM async.result WHERE location = %L', _table));
END $$;
DO $$
DECLARE
  _i INT := 20;
  _table TEXT;
  _id BIGINT;
BEGIN
  FOREACH _table IN ARRAY ARRAY['theirs.plain', 'theirs.seen', 'theirs.guarded', 'theirs.typed', NULL] LOOP
    INSERT INTO async.task (target, run_as, source) VALUES ('robots', 'h_ann', 'test') RETURNING task_id INTO _id;
    INSERT INTO pushed VALUES (_i, _id);
    PERFORM async.record_result(_id, 1, jsonb_build_object('kept_as', 'table', 'location', _table));
    _i := _i + 1;
  END LOOP;
  -- A superuser passes by policies, but not by casts.
  ASSERT pg_temp.fetched('theirs.plain') = 'no error';
  ASSERT pg_temp.fetched('theirs.guarded') = 'no error';
  ASSERT pg_temp.fetched('theirs.typed') LIKE '55000 the result of task % cannot be fetched from theirs.typed Select from it %';
  ASSERT pg_temp.fetched('theirs.seen') LIKE '55000 % cannot be fetched from theirs.seen %';
  ASSERT NOT EXISTS (SELECT FROM async.fetch_result(pg_temp.task(24))), 'there was no table';
END
$$;
SET LOCAL ROLE h_adm;
DO $$
DECLARE
  _table TEXT;
BEGIN
  ASSERT pg_temp.fetched('theirs.plain') = 'no error';
  FOREACH _table IN ARRAY ARRAY['theirs.seen', 'theirs.guarded', 'theirs.typed'] LOOP
    ASSERT pg_temp.fetched(_table) LIKE '55000 the result of task % cannot be fetched from theirs.% Select from it yourself%', _table;
  END LOOP;
END
$$;
SET LOCAL ROLE h_own;
DO $$
BEGIN
  ASSERT pg_temp.fetched('theirs.guarded') = 'no error', 'its owner passes by its policies';
  ASSERT pg_temp.fetched('theirs.typed') LIKE 'P0001 executed by h_own%', pg_temp.fetched('theirs.typed');
  ASSERT pg_temp.fetched('theirs.seen') LIKE '55000 %';
END
$$;
RESET ROLE;
DELETE FROM async.result WHERE task_id IN (SELECT id FROM pushed WHERE n >= 20);
DELETE FROM async.task WHERE task_id IN (SELECT id FROM pushed WHERE n >= 20);
DELETE FROM pushed WHERE n >= 20;

-- Nobody writes over what another role keeps; times that end after the calendar are cut.
DO $$
BEGIN
  ASSERT async.path_fault('shelf', 'latest.json', 'h_ann') IS NULL;
  ASSERT async.path_fault('shelf', 'latest.json', 'h_own') IS NULL, 'with its rights';
  ASSERT async.path_fault('shelf', 'latest.json', session_user) IS NULL;
  ASSERT async.path_fault('shelf', 'latest.json', 'h_bob') LIKE 'the result of another role is kept at path latest.json of store shelf %';
  ASSERT async.path_fault('upper', 'shelf/latest.json', 'h_bob') LIKE 'the result of another role %', 'the same place';
  ASSERT async.path_fault('upper', 'shelf/latest.json', 'h_ann') IS NULL;
  ASSERT async.path_fault('shelf', 'latest.json', 'nobody here') IS NOT NULL;
  ASSERT async.path_fault('shelf', 'other.json', 'h_bob') IS NULL;
  ASSERT async.path_fault('old', 'latest.json', 'h_bob') IS NULL;
  PERFORM async.record_result(pg_temp.task(12), 1, '{"kept_as": "inline", "content": [], "keep_for": "100000000 years"}');
  ASSERT (SELECT expires = created + INTERVAL '100 years' FROM async.result WHERE task_id = pg_temp.task(12));
  DELETE FROM async.result WHERE task_id = pg_temp.task(12);
END
$$;

-- Dropped, over, purged with its task: it cannot be read, and its object goes; a table stays.
SET LOCAL ROLE h_ann;
DO $$
BEGIN
  PERFORM async.drop_result(pg_temp.task(3)), async.drop_result(pg_temp.task(2));
  ASSERT NOT EXISTS (SELECT FROM async.v_result WHERE task_id IN (pg_temp.task(2), pg_temp.task(3)));
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(3))') LIKE '55000 % is over and is being deleted%';
  ASSERT pg_temp.error_of('SELECT async.fetch_result(pg_temp.task(2))') LIKE '42704 %';
  ASSERT (SELECT count(*) FROM theirs."odd ""name") = 5;
END
$$;
RESET ROLE;
DO $$
BEGIN
  ASSERT (SELECT array_agg(path) FROM async.expire_results(10)) = '{a/3-2.json.gz}';
  PERFORM async.record_result(pg_temp.task(2), 1, '{"kept_as": "object", "store": "old", "path": "y", "location": "s3://another/old/y"}');
  PERFORM async.record_result(pg_temp.task(12), 1, '{"kept_as": "inline", "content": []}');
  UPDATE async.task SET processed = now() - INTERVAL '1 year', finish_status = 'FINISHED' WHERE task_id IN (SELECT id FROM pushed);
  ASSERT async.purge('1 day', NULL, 100) = 12;
  ASSERT NOT EXISTS (SELECT FROM async.task);
  ASSERT (SELECT array_agg(path) FROM async.expire_results(10)) = '{y}', 'without a time of its own it goes with its task';
  ASSERT (SELECT count(*) FROM async.result WHERE task_id = pg_temp.task(12)) = 0;
  ASSERT (SELECT (run_as, state) = ('h_ann', 'kept') FROM async.result WHERE task_id = pg_temp.task(7)), 'with a time it outlives it';
  UPDATE async.result SET expires = now() WHERE state = 'kept';
  ASSERT (SELECT count(*) FROM async.expire_results(1)) + (SELECT count(*) FROM async.expire_results(1)) = 1, 'inline, then the object';
END
$$;
ROLLBACK;
