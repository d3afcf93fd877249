-- Who sees and may do what. Rolled back.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
CREATE ROLE h_ann LOGIN IN ROLE flow_user;
CREATE ROLE h_bob LOGIN IN ROLE flow_user;
CREATE ROLE h_group NOLOGIN IN ROLE flow_user;
CREATE ROLE h_mon LOGIN IN ROLE flow_monitor;
CREATE ROLE h_boss LOGIN IN ROLE flow_admin;
CREATE ROLE h_none LOGIN;
CREATE TEMP TABLE pushed (id BIGINT, who TEXT);
GRANT ALL ON pushed TO PUBLIC;

SET LOCAL ROLE h_boss;
DO $$
BEGIN
  PERFORM async.configure('{"targets": [{"target": "robots", "kind": "external"},
    {"target": "far", "connection_string": "host=x password=secret"}]}');
  ASSERT (SELECT count(*) FROM async.target WHERE connection_string LIKE '%secret%') = 1;
END
$$;
SET LOCAL ROLE h_ann;
INSERT INTO pushed SELECT async.push_task(async.task(NULL, 'robots')), 'ann';
INSERT INTO pushed SELECT async.push_task(async.task('SELECT 1', 'local')), 'ann';
RESET ROLE;
INSERT INTO async.external_queue SELECT t.target, t.priority, t.task_id FROM async.task t JOIN pushed p ON p.id = t.task_id WHERE t.target = 'robots';
DO $$
BEGIN
  PERFORM async.note_tasks(array_agg(id), 'STATUS', 'a note') FROM pushed;
END
$$;

-- Bob: neither sees nor touches; sees no password.
SET LOCAL ROLE h_bob;
DO $$
DECLARE
  _ids BIGINT[] := (SELECT array_agg(id) FROM pushed);
BEGIN
  ASSERT NOT EXISTS (SELECT FROM async.task WHERE task_id = ANY (_ids));
  ASSERT NOT EXISTS (SELECT FROM async.task_log WHERE task_id = ANY (_ids));
  ASSERT NOT EXISTS (SELECT FROM async.external_queue WHERE task_id = ANY (_ids));
  ASSERT NOT EXISTS (SELECT FROM async.v_task WHERE task_id = ANY (_ids));
  ASSERT NOT EXISTS (SELECT FROM async.v_task_log WHERE task_id = ANY (_ids));
  ASSERT NOT EXISTS (SELECT FROM async.get_tasks('robots', 10));
  ASSERT EXISTS (SELECT FROM async.v_target WHERE target = 'far');
  PERFORM FROM async.v_target_status; PERFORM FROM async.v_worker_info; PERFORM FROM async.v_concurrency_pool_info;
  PERFORM FROM async.v_server_info; PERFORM async.worker_info();
  BEGIN PERFORM async.cancel(_ids); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.finish(_ids, 'FINISHED', NULL); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.defer(_ids, '1 s'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.configure('{}'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.pause(); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.adopt(); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  ASSERT async.server() = '';
  BEGIN PERFORM async.server('host=h'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM connection_string FROM async.target; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM self_connection_string FROM async.control; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM FROM async.server_log; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN UPDATE async.task SET priority = 1; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN INSERT INTO async.task (target, run_as) VALUES ('local', 'postgres'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.cancel_as(10, _ids, NULL); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.announce_settings(); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
END
$$;

-- A group that cannot log in cannot run tasks here, but may push to external targets.
SET LOCAL ROLE h_group;
DO $$
BEGIN
  PERFORM async.push_task(async.task(NULL, 'robots'));
  PERFORM async.push_task(async.task('SELECT 1', 'local'));
  ASSERT current_setting('server_version_num')::INT >= 170000;
EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
END
$$;

-- The monitor reads everything and does nothing.
SET LOCAL ROLE h_mon;
DO $$
BEGIN
  ASSERT (SELECT count(*) FROM async.v_task t JOIN pushed p ON p.id = t.task_id) = 2;
  ASSERT (SELECT count(*) FROM async.task_log t JOIN pushed p ON p.id = t.task_id) = 2;
  PERFORM FROM async.server_log; PERFORM FROM async.v_server_info; PERFORM async.tail_once(); PERFORM FROM async.claim;
  BEGIN PERFORM async.push_task(async.task('SELECT 1', 'local')); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.cancel('{}'); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
END
$$;

-- Nobody: nothing.
SET LOCAL ROLE h_none;
DO $$
BEGIN
  BEGIN PERFORM FROM async.v_task; ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  BEGIN PERFORM async.push_task(NULL); ASSERT false; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
END
$$;

-- Whoever has ann's rights acts for her, and so does the admin.
RESET ROLE;
GRANT h_ann TO h_bob;
SET LOCAL ROLE h_bob;
DO $$
BEGIN
  ASSERT (SELECT count(*) FROM async.v_task t JOIN pushed p ON p.id = t.task_id) = 2;
  ASSERT (SELECT count(*) FROM async.get_tasks('robots', 10)) = 1;
  PERFORM async.log('a line');
END
$$;
SET LOCAL ROLE h_boss;
DO $$
BEGIN
  PERFORM async.pause();
  ASSERT (SELECT paused FROM async.control);
  PERFORM async.resume();
  ASSERT (SELECT NOT paused FROM async.control);
  PERFORM async.cancel(array_agg(id)) FROM pushed;
  ASSERT (SELECT bool_and(t.finish_status = 'CANCELED' AND t.run_as = 'h_ann') FROM async.task t JOIN pushed p ON p.id = t.task_id);
  ASSERT EXISTS (SELECT FROM async.tail_once(NULL, 'a line'));
END
$$;
RESET ROLE;

-- What a user's plain function calls, a user may call; nothing is for everybody; everything is explained.
DO $$
DECLARE
  _bad TEXT;
BEGIN
  WITH f AS (
    SELECT p.oid, p.pronamespace::REGNAMESPACE || '.' || p.proname AS name, p.prosrc, l.lanname = 'c' AS is_c,
           has_function_privilege('flow_user', p.oid, 'EXECUTE') AS u, has_function_privilege('flow_monitor', p.oid, 'EXECUTE') AS m
      FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE))
  SELECT string_agg(a.name || ' calls ' || b.name, ', ') INTO _bad
    FROM f a JOIN f b ON a.prosrc ~ ('\m' || replace(b.name, '.', '\.') || '\M\(')
   WHERE NOT a.is_c AND a.oid <> b.oid AND (a.u AND NOT b.u OR a.m AND NOT b.m AND a.name <> 'async.drain');
  ASSERT _bad IS NULL, _bad;
  SELECT string_agg(p.oid::REGPROCEDURE::TEXT, ', ') INTO _bad FROM pg_proc p
   WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE)
     AND (has_function_privilege('h_none', p.oid, 'EXECUTE')
          OR p.proname ~ '_as$|^announce_|^decide_own' AND has_function_privilege('flow_admin', p.oid, 'EXECUTE'));
  ASSERT _bad IS NULL, _bad;
  SELECT string_agg(p.oid::REGPROCEDURE::TEXT, ', ') INTO _bad FROM pg_proc p
   WHERE p.pronamespace = 'async'::REGNAMESPACE AND obj_description(p.oid, 'pg_proc') IS NULL AND p.proname <> 'purge';
  ASSERT _bad IS NULL, _bad;
  SELECT string_agg(c.oid::REGCLASS || '.' || a.attname, ', ') INTO _bad FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
   WHERE c.relnamespace = 'async'::REGNAMESPACE AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
     AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL);
  ASSERT _bad IS NULL, _bad;
END
$$;
ROLLBACK;
