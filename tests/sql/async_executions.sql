-- Executions: submitting, collapsing, fresh and stale results, searching, expiry, rights. Rolled back, so that nothing is
-- sent anywhere: tasks are ended and their results recorded by hand.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
CREATE ROLE h_ann LOGIN IN ROLE flow_user;
CREATE ROLE h_bob LOGIN IN ROLE flow_user;
CREATE ROLE h_mon LOGIN IN ROLE flow_monitor;
CREATE ROLE h_boss LOGIN IN ROLE flow_admin;
CREATE FUNCTION pg_temp.error_of(_statement TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _state TEXT; _message TEXT; _detail TEXT; _hint TEXT;
BEGIN
  EXECUTE _statement;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS _state = RETURNED_SQLSTATE, _message = MESSAGE_TEXT, _detail = PG_EXCEPTION_DETAIL, _hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(' ', _state, _message, _detail, _hint);
END
$$;
-- As the dispatcher ends a task.
CREATE FUNCTION pg_temp.ended(_task_id BIGINT, _status async.finish_status_t, _ago INTERVAL DEFAULT '0', _kept JSONB DEFAULT NULL)
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
  UPDATE async.task SET consumed = clock_timestamp() - _ago - INTERVAL '2 s', first_consumed = clock_timestamp() - _ago - INTERVAL '2 s',
    processed = clock_timestamp() - _ago, attempt = 1, finish_status = _status, failed = _status <> 'FINISHED',
    processing_error = CASE _status WHEN 'FAILED' THEN 'Memory limit exceeded (241)' END
   WHERE task_id = _task_id;
  PERFORM async.record_result(_task_id, 1, _kept);
END
$$;
CREATE TEMP TABLE made (name TEXT PRIMARY KEY, s async.submission_t);
GRANT ALL ON made TO PUBLIC;
CREATE FUNCTION pg_temp.note(_name TEXT, _s async.submission_t) RETURNS async.submission_t LANGUAGE sql AS $$
  INSERT INTO made VALUES (_name, _s) RETURNING s $$;
CREATE FUNCTION pg_temp.s(_name TEXT) RETURNS async.submission_t LANGUAGE sql STABLE AS $$ SELECT s FROM made WHERE name = _name $$;

-- Where it goes.
DO $$
BEGIN
  ASSERT pg_temp.error_of('SELECT async.submit(''SELECT 1'')') LIKE '42704 there is no target of kind "clickhouse"%';
  INSERT INTO async.target (target, kind, connection_string, options) VALUES
    ('warehouse', 'clickhouse', 'http://127.0.0.1:1', '{"tiers": {"analyst": {"settings": {"max_threads": 8}}, "both": {}}}');
  ASSERT async.execution_target(NULL, 'whatever') = 'warehouse', 'the only one';
  INSERT INTO async.target (target, kind, connection_string, options) VALUES
    ('small', 'clickhouse', 'http://127.0.0.1:2', '{"tiers": {"both": {}}}');
  ASSERT async.execution_target(NULL, 'analyst') = 'warehouse', 'the only one with the tier';
  ASSERT async.execution_target('small', 'analyst') = 'small';
  ASSERT pg_temp.error_of('SELECT async.submit(''SELECT 1'')') LIKE '% small, warehouse None of them has the tier "".%';
  ASSERT pg_temp.error_of('SELECT async.submit(''SELECT 1'', _tier => ''both'')') LIKE '% small, warehouse Each of them %';
  ASSERT pg_temp.error_of('SELECT async.submit(''SELECT 1'', _target => ''nowhere'')') LIKE '42704 there is no target "nowhere"%';
  DELETE FROM async.target WHERE target = 'small';
END
$$;

-- One in flight for a role and a query_id.
SET LOCAL ROLE h_ann;
DO $$
DECLARE
  _first async.submission_t; _other async.submission_t;
  _hash CONSTANT TEXT := 'e004ebd5b5532a4b85984a62f8ad48a81aa3460c1ca07701f386135d72cdecf5';  -- of: SELECT 1
BEGIN
  _first := pg_temp.note('one', async.submit('SELECT 1', _secrets => '{"key": "hunter22"}', _quota_key => 'dashboard'));
  ASSERT (_first.query_id, _first.status, _first.collapsed) = (_hash, 'PENDING', false) AND _first.result_task_id IS NULL;
  _other := async.submit('SELECT 1', _tier => 'analyst', _priority => 5);
  ASSERT (_other.execution_id, _other.task_id, _other.collapsed) = (_first.execution_id, _first.task_id, true), 'the tier takes no part';
  ASSERT (SELECT (collapsed_counter, query_hash, tier, target, created_by, quota_key, status) =
                 (1, _hash, '', 'warehouse', 'h_ann', 'dashboard', 'PENDING')
            FROM async.v_execution WHERE execution_id = _first.execution_id);
  ASSERT (SELECT options->>'quota_key' FROM async.task WHERE task_id = _first.task_id) = 'dashboard';
  ASSERT (async.submit('SELECT 1', 'mine')).execution_id <> _first.execution_id, 'an id of its own';
  ASSERT (async.submit('SELECT 2', 'mine')).collapsed, 'whatever the query is';
  ASSERT (async.submit('SELECT 1', _arguments => '{"a": 1}')).execution_id <> _first.execution_id, 'other arguments, another query';
  ASSERT (async.submit('SELECT 1', _arguments => '{"a": 1}')).collapsed;
  ASSERT NOT (async.submit('SELECT 1', _arguments => '{"a": 2}')).collapsed;
  ASSERT (async.submit('SELECT 1', '', _arguments => '{}')).execution_id = _first.execution_id;
  ASSERT pg_temp.error_of('SELECT async.submit('' ; '')') LIKE '22023 there is no query%';
  ASSERT pg_temp.error_of('SELECT async.submit(NULL)') LIKE '22023 there is no query%';
  ASSERT pg_temp.error_of('SELECT async.submit(''x'', repeat(''x'', 1001))') LIKE '22023 the _query_id is too long%';
  ASSERT pg_temp.error_of('SELECT async.submit(''x'', _stale_after => ''-1 s'')') LIKE '22023 %';
  ASSERT pg_temp.error_of('SELECT async.submit(''x'', _arguments => ''[1]'')') LIKE '22023 %';
  ASSERT pg_temp.error_of('SELECT async.execution_result(' || _first.execution_id || ')') LIKE '55000 % is PENDING and has no result%';
  PERFORM pg_temp.error_of('SELECT async.submit(''SELECT 1'', _secrets => ''{"key": "hunter23"}'')');
  ASSERT NOT EXISTS (SELECT FROM async.v_execution v WHERE to_jsonb(v.*)::TEXT LIKE '%hunter2%');
  ASSERT NOT EXISTS (SELECT FROM async.v_task v WHERE to_jsonb(v.*)::TEXT LIKE '%hunter2%');
  ASSERT pg_temp.error_of('SELECT * FROM async.task_secret') LIKE '42501 %';
END
$$;

-- Others: neither the query nor what became of it; the same query of another role is another execution.
SET LOCAL ROLE h_bob;
DO $$
DECLARE
  _its CONSTANT async.submission_t := pg_temp.s('one');
BEGIN
  ASSERT NOT EXISTS (SELECT FROM async.v_execution) AND NOT EXISTS (SELECT FROM async.execution(_its.execution_id));
  ASSERT NOT EXISTS (SELECT FROM async.search_executions(_its.query_id, _statuses => '{PENDING}'));
  ASSERT pg_temp.error_of(format('SELECT async.cancel_execution(%s)', _its.execution_id)) LIKE '42704 there is no execution %';
  ASSERT pg_temp.error_of(format('SELECT async.execution_result(%s)', _its.execution_id)) LIKE '42704 there is no execution %';
  ASSERT NOT (async.submit('SELECT 1')).collapsed;
  ASSERT pg_temp.error_of('SELECT async.configure_executions(_failed => ''1 h'')') LIKE '42501 %';
  ASSERT pg_temp.error_of('SELECT async.expire_executions(1)') LIKE '42501 %';
  ASSERT pg_temp.error_of('SELECT async.settle_executions(''{1}'')') LIKE '42501 %';
  ASSERT pg_temp.error_of('SELECT async.newest_result(''h_ann'', ''x'')') LIKE '42501 %';
  ASSERT pg_temp.error_of('UPDATE async.execution SET created_by = ''h_bob''') LIKE '42501 %';
END
$$;
SET LOCAL ROLE h_mon;
DO $$
DECLARE
  _its CONSTANT async.submission_t := pg_temp.s('one');
BEGIN
  ASSERT (SELECT count(*) FROM async.search_executions(_its.query_id, _statuses => '{PENDING}')) = 2;
  ASSERT pg_temp.error_of(format('SELECT async.cancel_execution(%s)', _its.execution_id)) LIKE '42501 %';
END
$$;
RESET ROLE;

-- It ends: the next submit is a new one; the result can be used until it is too old.
DO $$
BEGIN
  PERFORM pg_temp.ended((pg_temp.s('one')).task_id, 'FINISHED', '10 minutes', '{"kept_as": "inline", "rows": 2, "bytes": 20,
    "meta": [{"name": "n", "type": "UInt8", "shape": "int"}], "content": [{"n": 1}, {"n": 2}]}');
END
$$;
SET LOCAL ROLE h_ann;
DO $$
DECLARE
  _one CONSTANT async.submission_t := pg_temp.s('one');
  _s   async.submission_t;
  _x   async.v_execution;
BEGIN
  _s := async.submit('SELECT 1', _stale_after => '1 hour');
  ASSERT (_s.execution_id, _s.status, _s.result_execution_id, _s.result_task_id, _s.collapsed)
       = (_one.execution_id, 'SUCCEEDED', _one.execution_id, _one.task_id, false), 'fresh enough';
  _s := async.submit('SELECT 1', _stale_after => '1 minute');
  ASSERT _s.execution_id > _one.execution_id AND _s.status = 'PENDING' AND _s.result_execution_id = _one.execution_id
     AND _s.result_completed_at < clock_timestamp() - INTERVAL '9 minutes', 'stale: a refresh is queued';
  ASSERT (async.submit('SELECT 1', _stale_after => '1 minute')).collapsed;
  ASSERT (async.submit('SELECT 3', _stale_after => '1 minute')).result_task_id IS NULL;
  PERFORM pg_temp.note('two', _s);

  _x := async.execution(_one.execution_id);
  ASSERT _x.status = 'SUCCEEDED' AND _x.result = '{"meta": [{"name": "n", "type": "UInt8"}], "rows": 2, "duration": 2000}';
  ASSERT _x.picked_at = _x.completed_at - INTERVAL '2 s' OR _x.picked_at < _x.completed_at;
  ASSERT async.execution_result(_one.execution_id)
       = '{"meta": [{"name": "n", "type": "UInt8"}], "rows": 2, "data": [{"n": 1}, {"n": 2}]}';
  ASSERT async.execution_result(_one.execution_id, 1, 1)->'data' = '[{"n": 2}]';
  PERFORM async.cancel_execution(_s.execution_id, 'no need');
  ASSERT (SELECT (status, error) = ('CANCELED', 'no need') FROM async.v_execution WHERE execution_id = _s.execution_id);
  PERFORM pg_temp.note('three', async.submit('SELECT 1'));
  ASSERT (pg_temp.s('three')).execution_id > _s.execution_id;
END
$$;
RESET ROLE;
DO $$ BEGIN PERFORM pg_temp.ended((pg_temp.s('three')).task_id, 'FAILED', '1 minute'); END $$;

SET LOCAL ROLE h_ann;
DO $$
DECLARE
  _id  CONSTANT TEXT := (pg_temp.s('one')).query_id;
  _all JSONB[];
BEGIN
  ASSERT (SELECT array_agg(status) FROM async.search_executions(_id)) = '{FAILED,SUCCEEDED}';
  ASSERT (SELECT array_agg(status) FROM async.search_executions(_id, _statuses => '{SUCCEEDED,CANCELED,FAILED}'))
       = '{CANCELED,FAILED,SUCCEEDED}', 'by their ends';
  ASSERT (SELECT array_agg(status) FROM async.search_executions(_id, _statuses => '{SUCCEEDED,CANCELED,FAILED}', _limit => 2,
            _sort_by => 'CREATED_AT')) = '{FAILED,CANCELED}';
  ASSERT NOT EXISTS (SELECT FROM async.search_executions(_id, 'another hash'));
  ASSERT (SELECT error FROM async.search_executions(_id, _limit => 1)) = 'Memory limit exceeded (241)';
  ASSERT pg_temp.error_of('SELECT async.search_executions(''x'', _statuses => ''{DONE}'')') LIKE '22023 there is no status DONE%';
  ASSERT pg_temp.error_of('SELECT async.search_executions(''x'', _limit => 101)') LIKE '22023 %';
  ASSERT pg_temp.error_of('SELECT async.search_executions(''x'', _sort_by => ''query'')') LIKE '22023 %';
  _all := ARRAY(SELECT async.search_executions(jsonb_build_array(jsonb_build_object('query_id', _id, 'limit', 1),
    '{"query_id": "nothing"}'::JSONB, jsonb_build_object('query_id', _id, 'statuses', '["SUCCEEDED"]'::JSONB))));
  ASSERT cardinality(_all) = 3 AND _all[1]->0->>'status' = 'FAILED' AND _all[2] = '[]' AND _all[3]->0->>'status' = 'SUCCEEDED';
  ASSERT pg_temp.error_of('SELECT async.search_executions(''[{"query": "x"}]''::JSONB)') LIKE '22023 not a search%';
  ASSERT pg_temp.error_of('SELECT async.search_executions(''[{"query_id": "x", "state": "x"}]''::JSONB)') LIKE '22023 a search has no "state"%';
END
$$;
RESET ROLE;

-- Expiry, by how it ended; what is in flight stays. The facts outlive the task.
SET LOCAL ROLE h_boss;
DO $$ BEGIN PERFORM async.configure_executions(_failed => '1 day', _result => '{"to": "inline", "max_rows": 10}'); END $$;
RESET ROLE;
DO $$
DECLARE
  _calls INT := 0;
  _open  CONSTANT BIGINT[] := ARRAY(SELECT execution_id FROM async.v_execution WHERE status = 'PENDING' ORDER BY 1);
  _one   CONSTANT async.submission_t := pg_temp.s('one');
BEGIN
  ASSERT (async.execution_keep('CANCELED'), async.execution_keep('FAILED'), async.execution_keep('SUCCEEDED'))
       = (INTERVAL '1 hour', INTERVAL '1 day', INTERVAL '90 days');
  ASSERT (SELECT expires - created FROM async.result WHERE task_id = _one.task_id) = INTERVAL '90 days', 'its result too';
  WHILE async.expire_executions(100) > 0 LOOP _calls := _calls + 1; ASSERT _calls < 20; END LOOP;
  ASSERT (SELECT array_agg(x ORDER BY x) FROM (SELECT expires - completed_at AS x FROM async.execution WHERE NOT open) AS e)
       = '{1:00:00,1 day,90 days}';
  ASSERT (SELECT count(*) FROM async.execution WHERE open) = cardinality(_open);

  UPDATE async.task SET processed = processed - INTERVAL '1 year' WHERE processed IS NOT NULL;
  PERFORM async.purge('1 day', NULL, 100);
  ASSERT NOT EXISTS (SELECT FROM async.task WHERE processed IS NOT NULL);
  ASSERT (SELECT (status, error, result) IS NOT DISTINCT FROM ('FAILED', 'Memory limit exceeded (241)', NULL)
            FROM async.v_execution WHERE execution_id = (pg_temp.s('three')).execution_id);
  ASSERT (async.execution(_one.execution_id)).result->>'rows' = '2';
  ASSERT jsonb_array_length(async.execution_result(_one.execution_id)->'data') = 2, 'its result outlives the task';

  UPDATE async.execution SET expires = now() WHERE execution_id = _one.execution_id;
  PERFORM async.expire_executions(100);
  ASSERT (SELECT (status, result) IS NOT DISTINCT FROM ('EXPIRED', NULL) FROM async.v_execution WHERE execution_id = _one.execution_id);
  ASSERT pg_temp.error_of(format('SELECT async.execution_result(%s)', _one.execution_id)) LIKE '55000 % is EXPIRED %';
  PERFORM async.expire_results(100);
  ASSERT NOT EXISTS (SELECT FROM async.result WHERE task_id = _one.task_id);
  UPDATE async.execution SET expires = now() WHERE status = 'EXPIRED';
  PERFORM async.expire_executions(100);
  ASSERT NOT EXISTS (SELECT FROM async.execution WHERE execution_id = _one.execution_id), 'forgotten in the end';
  ASSERT (SELECT array_agg(execution_id ORDER BY execution_id) FROM async.execution WHERE open) = _open;
END
$$;

-- What many in flight stand before is found too.
DO $$
DECLARE
  _last BIGINT;
BEGIN
  FOR i IN 1 .. 50 LOOP _last := (async.submit('SELECT ' || i, 'many' || i)).task_id; END LOOP;
  PERFORM pg_temp.ended(_last, 'FINISHED');
  FOR i IN 1 .. 2000 LOOP
    EXIT WHEN async.expire_executions(2) > 0;
  END LOOP;
  ASSERT (SELECT NOT open AND status = 'SUCCEEDED' FROM async.execution WHERE task_id = _last);
END
$$;

-- The words of Dekart's jobs.
INSERT INTO async.store (store, url) VALUES ('files', 's3://bucket/files');
SET LOCAL ROLE h_ann;
DO $$
BEGIN
  PERFORM async.submit('SELECT 8', _result => '"inline"');
  PERFORM pg_temp.note('job', async.submit('SELECT 9', _arguments => '{"report": "r1", "query": "q1"}', _timeout => '10 minutes',
    _result => '{"to": "export", "store": "files", "path": "{report}/{query}/result", "format": "csv"}'));
  ASSERT (SELECT (report, query, status) = ('r1', 'q1', 'PENDING') FROM async.v_dekart_job);
END
$$;
RESET ROLE;
DO $$
BEGIN
  PERFORM pg_temp.ended((pg_temp.s('job')).task_id, 'FINISHED', '0', '{"kept_as": "export", "store": "files",
    "path": "r1/q1/result.csv", "location": "s3://bucket/files/r1/q1/result.csv", "format": "csv", "bytes": 77}');
  ASSERT (SELECT (status, result_size, location) = ('DONE', 77, 's3://bucket/files/r1/q1/result.csv') FROM async.v_dekart_job);
  UPDATE async.task SET finish_status = 'FAILED', processing_error = 'no' WHERE task_id = (pg_temp.s('job')).task_id;
  ASSERT (SELECT (status, error) = ('FAILED', 'no') FROM async.v_dekart_job);
END
$$;
ROLLBACK;
