-- async.configure, targets and pools. Everything is rolled back, so that no engine acts on it.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;

-- Where a connection string leads.
DO $$
DECLARE
  _db   TEXT := current_database();
  _port TEXT := current_setting('port');
  _case RECORD;
BEGIN
  FOR _case IN
    SELECT * FROM (VALUES
      ('', true), ('dbname=' || _db, true), ('  host = localhost  port=' || _port || ' dbname = ''' || _db || ''' ', true),
      ('host=127.0.0.1', true), ('host=127.1.2.3', true), ('host=::1', true), ('host=' || split_part(current_setting('unix_socket_directories'), ',', 1), true),
      ('host=/nowhere', false), ('host=db.example.com', false), ('host=localhost port=1', false), ('dbname=other_one', false),
      ('host=localhost,db.example.com', false), ('service=x', false), ('hostaddr=10.0.0.1 host=localhost', false),
      ('host=localhost password=''a b\''c'' user=x', true), ('host=local\host', true),
      ('postgresql://', true), ('postgres:///' || _db, true), ('postgresql://u:p%40x@localhost:' || _port || '/' || _db || '?sslmode=disable', true),
      ('postgresql://[::1]:' || _port || '/', true), ('postgresql://localhost,127.0.0.1/', true), ('postgresql://db.example.com/' || _db, false),
      ('postgresql://localhost:1/' || _db, false), ('postgresql:///other_one', false), ('postgresql:///?host=db.example.com', false),
      ('postgresql:///' || _db || '?host=%2Fnowhere', false)) AS c(conninfo, here)
  LOOP
    ASSERT async.leads_here(_case.conninfo) = _case.here, _case.conninfo;
  END LOOP;
  ASSERT async.conninfo_options('host=a password=''it\''s''') = '{"host": "a", "password": "it''s"}';
  ASSERT async.conninfo_options('postgresql://u%20v:secret@h:5/db?application_name=a%26b')
    = '{"user": "u v", "host": "h", "port": "5", "dbname": "db", "application_name": "a&b"}',
    async.conninfo_options('postgresql://u%20v:secret@h:5/db?application_name=a%26b');
  ASSERT async.conninfo_options('not one') IS NULL;
  ASSERT async.conninfo_options('host=''open') IS NULL;
END
$$;

-- A configuration, read back; what is left out stays; null is the default.
DO $$
DECLARE
  _row RECORD;
BEGIN
  PERFORM async.configure('{
    "control": {"workers": 12, "default_timeout": "1 hour", "idle_sleep": 0.1, "self_concurrency": 5, "debug_log": true},
    "targets": [{"target": "reports", "max_workers": 3, "default_timeout": "10 minutes", "asynchronous_finish": true},
                {"target": "robots", "kind": "external", "max_concurrency": "4"},
                {"target": "far", "connection_string": "host=db.example.com password=secret"},
                {"target": "near", "connection_string": "host=localhost user=me", "concurrency_track_yielded": "true"}],
    "concurrency_pools": [{"concurrency_pool": "one", "max_workers": 1}, {"concurrency_pool": "near", "max_workers": 8}]}');
  SELECT * INTO _row FROM async.control;
  ASSERT _row.workers = 12 AND _row.default_timeout = '1 hour' AND _row.debug_log AND _row.self_target = 'async.self';
  ASSERT (SELECT string_agg(format('%s:%s:%s', target, kind, max_concurrency), ' ' ORDER BY target) FROM async.target)
    = 'far:postgres:8 local:local:5 near:local:8 reports:local:3 robots:external:4';
  ASSERT (SELECT string_agg(concurrency_pool || max_workers, ' ') FROM async.concurrency_pool) = 'one1';
  ASSERT (SELECT asynchronous_finish AND default_timeout = '10 minutes' FROM async.target WHERE target = 'reports');
  ASSERT async.target_kind(NULL) = 'local' AND async.target_kind('async.self') = 'local'
     AND async.target_kind('robots') = 'external' AND async.target_kind('nothing') IS NULL;

  PERFORM async.configure('{"control": {"self_target": "me", "default_timeout": null}}');
  ASSERT (SELECT count(*) FROM async.target) = 5 AND async.target_name('me') = 'local' AND async.target_name('async.self') = 'local';
  ASSERT (SELECT default_timeout IS NULL AND workers = 12 FROM async.control);

  PERFORM async.configure('{"targets": [{"target": "robots", "max_concurrency": null}, {"target": "me", "max_concurrency": 6},
    {"target": "reports", "default_timeout": null}]}');
  ASSERT (SELECT string_agg(format('%s:%s:%s', target, kind, max_concurrency), ' ' ORDER BY target) FROM async.target)
    = 'local:local:6 reports:local:3 robots:external:8';
  ASSERT (SELECT asynchronous_finish AND default_timeout IS NULL FROM async.target WHERE target = 'reports');
  ASSERT (SELECT count(*) FROM async.concurrency_pool) = 1;
END
$$;

-- Every fault at once, with its place; nothing is changed.
DO $$
DECLARE
  _detail TEXT;
  _before TEXT := (SELECT string_agg(t::TEXT, ';' ORDER BY target) FROM async.target t);
BEGIN
  BEGIN
    PERFORM async.configure('{"control": {"workers": 0, "idle_slep": 1, "default_timeout": "soon", "self_target": "robots", "debug_log": "maybe"},
      "target": [], "whatever else": 1,
      "targets": [{"target": "x", "max_concurency": 3}, {"target": "x"}, {"kind": "lokal", "target": "y"}, 7, {"max_workers": 1},
                  {"target": "z", "kind": "external", "connection_string": "host=a password=secret"}, {"target": "v", "kind": "postgres"},
                  {"target": "local", "connection_string": "host=db.example.com"}, {"target": "w", "connection_string": "secret"},
                  {"target": "q", "max_workers": 1, "max_concurrency": 2}],
      "concurrency_pools": [{"concurrency_pool": "p", "max_workers": -1}, {"concurrency_pool": "p"}, {"concurrency_pool": ""}]}');
    ASSERT false, 'accepted';
  EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL;
    ASSERT _detail NOT LIKE '%secret%', _detail;
    ASSERT array_length(string_to_array(_detail, E'\n'), 1) = 19, _detail;
    ASSERT _detail LIKE '%$.control.idle_slep: there is no such key; did you mean "idle_sleep"?%', _detail;
    ASSERT _detail LIKE '%$.target: there is no such key; did you mean "targets"?%', _detail;
    ASSERT _detail LIKE '%$.targets[0].max_concurency: there is no such key; did you mean "max_concurrency"?%', _detail;
    ASSERT _detail LIKE '%$.targets[1]: "x" is here more than once%', _detail;
    ASSERT _detail LIKE '%$.targets[4]: has no "target"%', _detail;
    ASSERT _detail LIKE '%$.targets[7].%: leads elsewhere, but the target is local%' OR _detail LIKE '%$.targets[7].kind:%', _detail;
  END;
  ASSERT _before = (SELECT string_agg(t::TEXT, ';' ORDER BY target) FROM async.target t);
  BEGIN
    PERFORM async.configure('[]');
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
  BEGIN
    PERFORM async.configure(NULL);
    ASSERT false;
  EXCEPTION WHEN null_value_not_allowed THEN NULL; END;
END
$$;

-- Targets and pools in use stay, history too.
DO $$
DECLARE
  _id     BIGINT;
  _detail TEXT;
BEGIN
  PERFORM async.configure('{"targets": [{"target": "robots", "kind": "external"}],
                            "concurrency_pools": [{"concurrency_pool": "one", "max_workers": 1}]}');
  _id := async.push_task(async.task(NULL, 'robots', concurrency_pool => 'one'));
  BEGIN
    PERFORM async.configure('{"targets": [], "concurrency_pools": []}');
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL;
    ASSERT _detail LIKE format('%%target "robots", which is in use: 1 open task (%s)%%pool "one", which is in use%%', _id), _detail;
  END;
  BEGIN
    PERFORM async.configure('{"targets": [{"target": "robots", "kind": "local"}]}');
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL;
    ASSERT _detail LIKE '%$.targets[0].kind: was "external" and would be "local"%', _detail;
  END;
  BEGIN
    PERFORM async.drop_target('robots');
    ASSERT false;
  EXCEPTION WHEN object_in_use THEN NULL; END;
  BEGIN
    PERFORM async.drop_pool('one');
    ASSERT false;
  EXCEPTION WHEN object_in_use THEN NULL; END;
  PERFORM async.cancel(ARRAY[_id]);
  PERFORM async.drop_pool('one');
  PERFORM async.drop_target('robots');
  ASSERT (SELECT target = 'robots' AND processed IS NOT NULL FROM async.task WHERE task_id = _id);
  BEGIN
    PERFORM async.drop_target('robots');
    ASSERT false;
  EXCEPTION WHEN undefined_object THEN NULL; END;
  BEGIN
    PERFORM async.drop_target('local');
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN NULL; END;
END
$$;
ROLLBACK;
