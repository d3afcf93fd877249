-- What people look at. Every view is security_invoker: row-level security shows each his own tasks, monitors all.
-- What runs right now is in shared memory; the views join it, so that they are true while a task runs.

CREATE FUNCTION async.interval_pretty(i INTERVAL) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _s CONSTANT NUMERIC := extract(epoch FROM i);
  _t CONSTANT NUMERIC := CASE WHEN abs(_s) >= 60 THEN round(abs(_s)) ELSE abs(_s) END;
BEGIN
  RETURN CASE WHEN _s < 0 THEN '-' ELSE '' END || CASE
    WHEN _t >= 86400 THEN format('%sd %sh %sm %ss', div(_t, 86400), div(mod(_t, 86400), 3600),
                                 div(mod(_t, 3600), 60), mod(_t, 60))
    WHEN _t >= 3600 THEN format('%sh %sm %ss', div(_t, 3600), div(mod(_t, 3600), 60), mod(_t, 60))
    WHEN _t >= 60 THEN format('%sm %ss', div(_t, 60), mod(_t, 60))
    WHEN _t >= 1 THEN trim_scale(round(_t, 1)) || 's'
    WHEN _t >= 0.01 OR _t = 0 THEN round(_t * 1000) || 'ms'
    ELSE trim_scale(round(_t * 1000, 2)) || 'ms' END;
END
$$;
COMMENT ON FUNCTION async.interval_pretty IS 'A duration for people: "1d 2h 3m 4s", "2m 5s", "3.5s", "350ms".';

-- Finds by bisection, because tasks have no index but their key; ids grow with time.
CREATE FUNCTION async.first_task_since(_since TIMESTAMPTZ) RETURNS BIGINT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _low  BIGINT := coalesce((SELECT min(t.task_id) FROM async.task t), 1);
  _high BIGINT := coalesce((SELECT max(t.task_id) FROM async.task t), 0) + 1;
  _mid  BIGINT;
  _at   TIMESTAMPTZ;
BEGIN
  WHILE _low < _high LOOP  -- at most 63 times
    _mid := (_low + _high) / 2;
    SELECT t.entered INTO _at FROM async.task t WHERE t.task_id >= _mid ORDER BY t.task_id LIMIT 1;
    IF _at >= _since OR NOT FOUND THEN
      _high := _mid;
    ELSE
      _low := _mid + 1;
    END IF;
  END LOOP;
  RETURN _low;
END
$$;
COMMENT ON FUNCTION async.first_task_since IS
  'About the first task_id that was pushed at _since or later, of those you may read.';

CREATE FUNCTION async.last_message() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege('async.server_log', 'SELECT') THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT l.message FROM async.server_log l ORDER BY l.server_log_id DESC LIMIT 1);
END
$$;
COMMENT ON FUNCTION async.last_message IS 'The newest line of async.server_log, or null for who may not read it.';

CREATE VIEW async.v_task WITH (security_invoker = true) AS
SELECT t.task_id,
       CASE WHEN t.processed IS NOT NULL THEN
              CASE t.finish_status WHEN 'FINISHED' THEN 'Finished' WHEN 'CANCELED' THEN 'Cancelled'
                WHEN 'TIMED_OUT' THEN 'Timed Out' WHEN 'DOA' THEN 'Skipped' ELSE 'Failed' END
            WHEN r.task_id IS NOT NULL THEN 'Running'
            WHEN t.yielded IS NOT NULL THEN CASE WHEN k.kind = 'external' THEN 'Leased' ELSE 'Yielded' END
            WHEN t.eligible_when = 'infinity' THEN 'Held'
            WHEN t.eligible_when > now() THEN 'Deferred'
            ELSE 'Pending' END AS state,
       t.target, t.priority, t.run_as, t.query, t.task_data, t.source,
       t.flow_id, t.node_no, t.is_step,
       t.entered, coalesce(r.started, t.consumed) AS consumed, t.first_consumed, t.yielded, t.processed,
       CASE WHEN coalesce(r.started, t.consumed) IS NOT NULL THEN async.interval_pretty(
         coalesce(t.processed, clock_timestamp()) - coalesce(r.started, t.consumed)) END AS run_time,
       t.finish_status, t.failed, t.processing_error, t.eligible_when, t.times_up, t.attempt, t.crashes, t.suspect,
       t.partially_committed, t.asynchronous_finish, t.track_yielded,
       coalesce(nullif(t.concurrency_pool, ''), t.target) AS concurrency_pool, t.manual_timeout,
       r.pid AS worker_pid, r.progress_done, r.progress_total, r.progress_note, r.rows, r.bytes, r.total_rows
  FROM async.task t
  LEFT JOIN async.target k ON k.target = t.target
  LEFT JOIN async.running() r ON r.task_id = t.task_id AND t.processed IS NULL;
COMMENT ON VIEW async.v_task IS
  'Tasks with what runs right now. state: Pending, Held (a step whose node has not started), Deferred (until '
  'eligible_when), Running, Yielded (waits for async.finish), Leased (a client took it), Finished, Failed, Cancelled, '
  'Timed Out, Skipped. consumed: start of the last attempt. progress_*: what the callback says of itself, or rows read and '
  'to read elsewhere; rows, bytes, total_rows: of a query that runs elsewhere, so far.';

CREATE VIEW async.v_task_log WITH (security_invoker = true) AS
SELECT t.task_id, 0 AS attempt, t.entered AS at, 'STATUS' AS level,
       format('pushed by role "%s" for target "%s"', t.run_as, t.target) AS message
  FROM async.task t
UNION ALL
SELECT t.task_id, 1, t.first_consumed, 'STATUS', 'started'
  FROM async.task t WHERE t.first_consumed IS NOT NULL AND t.first_consumed IS DISTINCT FROM t.consumed
UNION ALL
SELECT t.task_id, t.attempt, t.consumed, 'STATUS', 'started'
  FROM async.task t WHERE t.consumed IS NOT NULL AND t.attempt > 0
UNION ALL
SELECT t.task_id, r.attempt, r.started, 'STATUS', format('started in worker %s', r.pid)
  FROM async.running() r JOIN async.task t ON t.task_id = r.task_id AND t.processed IS NULL
UNION ALL
SELECT t.task_id, t.attempt, t.yielded, 'STATUS', 'yielded'
  FROM async.task t WHERE t.yielded IS NOT NULL
UNION ALL
SELECT t.task_id, t.attempt, t.processed, 'STATUS',
       lower(t.finish_status::TEXT) || coalesce(': ' || t.processing_error, '')
  FROM async.task t WHERE t.processed IS NOT NULL
UNION ALL
SELECT l.task_id, l.attempt, l.at, l.level, l.message
  FROM async.task_log l;
COMMENT ON VIEW async.v_task_log IS
  'What happened to a task: pushed, started, yielded, ended, and the lines of async.task_log (messages of the callback; '
  'put off, lease over, started again). Look by task_id, ORDER BY at. Starts of attempts between the first and the last are '
  'not kept.';

CREATE VIEW async.v_target WITH (security_invoker = true) AS
SELECT t.target, t.kind, t.max_concurrency, t.asynchronous_finish, t.default_timeout, t.concurrency_track_yielded,
       coalesce(p.running, 0) AS active_workers, coalesce(p.waiting, 0) AS waiting,
       t.server, t.owner, async.target_options(t.target) AS options
  FROM async.target t
  LEFT JOIN async.pool_use() p ON p.concurrency_pool = t.target
 ORDER BY t.target;
COMMENT ON VIEW async.v_target IS
  'The targets, without their connection strings and without credentials among their options. active_workers, waiting: tasks in the target''s own pool, whoever''s they are.';

CREATE VIEW async.v_store WITH (security_invoker = true) AS
SELECT s.store, s.url, s.server, s.owner, s.keep_for, async.store_options(s.store) AS options
  FROM async.store s
 ORDER BY s.store;
COMMENT ON VIEW async.v_store IS 'The stores, without credentials.';

CREATE VIEW async.v_target_status WITH (security_invoker = true) AS
SELECT k.target,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 day') AS tasks_entered_24h,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 hour') AS tasks_entered_1h,
       count(*) FILTER (WHERE t.entered >= now() - INTERVAL '1 minute') AS tasks_entered_1m,
       count(t.task_id) FILTER (WHERE t.processed IS NULL AND t.yielded IS NULL AND r.task_id IS NULL) AS tasks_pending,
       count(t.task_id) FILTER (WHERE t.processed IS NULL AND r.task_id IS NOT NULL) AS tasks_running,
       count(*) FILTER (WHERE t.processed IS NULL AND t.yielded IS NOT NULL AND r.task_id IS NULL) AS tasks_yielded,
       coalesce(p.running, 0) AS concurency_assigned_workers,
       count(*) FILTER (WHERE r.task_id IS NOT NULL AND t.concurrency_pool <> t.target) AS concurrency_external_pool,
       coalesce(p.max_workers, k.max_concurrency) AS concurency_max_workers,
       d.since AS down_since, d.next_try, d.tries AS down_tries, d.error AS down_error
  FROM async.target k
  LEFT JOIN async.task t ON t.target = k.target
   AND t.task_id >= (SELECT least(e.open_low, async.first_task_since(now() - INTERVAL '1 day')) FROM async.engine_state e)
   AND (t.processed IS NULL OR t.entered >= now() - INTERVAL '1 day')
  LEFT JOIN async.running() r ON r.task_id = t.task_id
  LEFT JOIN async.pool_use() p ON p.concurrency_pool = k.target
  LEFT JOIN async.target_down d ON d.target = k.target
 GROUP BY k.target, k.max_concurrency, p.running, p.max_workers, d.target
 ORDER BY k.target;
COMMENT ON VIEW async.v_target_status IS
  'Per target the tasks you may read: entered in the last day, hour, minute; open ones by state; concurrency_external_pool: '
  'running in another pool than the target''s; concurency_* (the original''s spelling): the target''s pool, running and size. '
  'down_*: since when it cannot be reached and why, how often it was tried; null: nothing is known to be wrong with it.';

CREATE VIEW async.v_worker_info WITH (security_invoker = true) AS
SELECT row_number() OVER (ORDER BY p.started, p.pid) AS slot,
       t.target, p.task_id, r.started AS running_since, t.query, t.priority,
       coalesce(nullif(t.concurrency_pool, ''), t.target) AS concurrency_pool,
       p.pid, pg_get_userbyid(p.role_oid) AS role, p.state, p.started, p.tasks_done,
       t.flow_id, r.progress_done, r.progress_total, r.progress_note, p.last_error
  FROM async.processes() p
  LEFT JOIN async.running() r ON r.pid = p.pid
  LEFT JOIN async.task t ON t.task_id = r.task_id
 WHERE p.kind = 'worker'
   AND p.database_oid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW async.v_worker_info IS
  'The workers of this database and what each runs, with details for tasks you may read. running_since: start of the task; '
  'started: of the worker. slot: a number for the display, not kept.';

CREATE VIEW async.v_concurrency_pool_info WITH (security_invoker = true) AS
SELECT n.concurrency_pool, coalesce(u.running, 0) AS workers,
       coalesce(u.max_workers, c.max_workers, k.max_concurrency) AS max_workers,
       t.task_id, t.query, t.started AS consumed, coalesce(u.waiting, 0) AS waiting, t.target, t.flow_id
  FROM (SELECT p.concurrency_pool FROM async.concurrency_pool p
        UNION SELECT k.target FROM async.target k
        UNION SELECT u.concurrency_pool FROM async.pool_use() u) AS n
  LEFT JOIN async.pool_use() u ON u.concurrency_pool = n.concurrency_pool
  LEFT JOIN async.concurrency_pool c ON c.concurrency_pool = n.concurrency_pool
  LEFT JOIN async.target k ON k.target = n.concurrency_pool
  LEFT JOIN (SELECT x.task_id, x.query, x.target, x.flow_id, r.started,
                    coalesce(nullif(x.concurrency_pool, ''), f.concurrency_pool, x.target) AS pool
               FROM async.running() r
               JOIN async.task x ON x.task_id = r.task_id
               LEFT JOIN flow.flow_node f
                      ON x.concurrency_pool = '' AND f.flow_id = x.flow_id AND f.node_no = x.node_no) AS t
         ON t.pool = n.concurrency_pool
 ORDER BY lower(n.concurrency_pool), t.task_id;
COMMENT ON VIEW async.v_concurrency_pool_info IS
  'Every pool (configured ones, those of the targets, those in use) with its running (workers) and waiting tasks and its '
  'size; one row for each running task that you may read, or one without.';

CREATE VIEW async.v_server_info WITH (security_invoker = true) AS
WITH here AS (
  SELECT d.oid FROM pg_database d WHERE d.datname = current_database()
), process AS (
  SELECT p.* FROM async.processes() p, here h WHERE p.database_oid = h.oid OR p.kind = 'launcher'
), open_task AS (
  SELECT t.task_id, t.query, t.entered, t.yielded, r.started
    FROM async.task t LEFT JOIN async.running() r ON r.task_id = t.task_id
   WHERE t.processed IS NULL AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
), longest AS (
  SELECT o.* FROM open_task o WHERE o.started IS NOT NULL ORDER BY o.started LIMIT 1
)
SELECT d.pid AS server_pid, clock_timestamp() - d.started AS uptime, async.last_message() AS last_message,
       CASE WHEN l.kind IS NULL THEN 'not loaded: shared_preload_libraries lacks pgflow'
            WHEN v.mismatch IS NOT NULL THEN v.mismatch
            WHEN pg_is_in_recovery() THEN 'standby: nothing runs here'
            WHEN current_setting('pgflow.enabled', true) = 'off' THEN 'pgflow.enabled is off: nothing runs'
            WHEN d.pid IS NULL THEN 'not running'
            WHEN NOT a.adopted THEN 'a copy: nothing runs before async.adopt()'
            WHEN c.paused THEN 'paused'
            ELSE coalesce(d.state, 'running') END AS server_status,
       NULL::TEXT AS loop_time, NULL::TEXT AS reap_time, NULL::TEXT AS internal_time, NULL::TEXT AS run_time,
       NULL::TEXT AS routine_time, NULL::TEXT AS since_commit_time,
       w.workers, w.running_workers, w.longest_running_worker,
       p.concurrency_pools, p.idle_pools, p.running_pools, p.full_pools, p.tracked_running_tasks,
       o.unfinished_tasks, o.pending_tasks, o.yielded_tasks, o.running_tasks, o.longest_pending_task_duration,
       g.task_id AS longest_running_task_id, g.query AS longest_running_task_query,
       async.interval_pretty(clock_timestamp() - g.started) AS longest_running_task_duration,
       c.paused, a.adopted, l.pid AS launcher_pid, d.queued AS queued_tasks, d.tasks_done,
       w.starvation,
       async.library_version() AS library_version,
       (SELECT x.extversion FROM pg_extension x WHERE x.extname = 'pgflow') AS extension_version
  FROM async.control c
 CROSS JOIN (SELECT async.adopted() AS adopted) AS a
 CROSS JOIN (SELECT async.version_mismatch() AS mismatch) AS v
  LEFT JOIN LATERAL (SELECT x.* FROM process x WHERE x.kind = 'dispatcher' ORDER BY x.started DESC LIMIT 1) AS d ON true
  LEFT JOIN LATERAL (SELECT x.* FROM process x WHERE x.kind = 'launcher' LIMIT 1) AS l ON true
 CROSS JOIN (
   SELECT count(*) FILTER (WHERE x.kind = 'worker') AS workers,
          count(*) FILTER (WHERE x.kind = 'worker' AND x.task_id IS NOT NULL) AS running_workers,
          (SELECT async.interval_pretty(max(clock_timestamp() - r.started)) FROM async.running() r) AS longest_running_worker,
          string_agg(DISTINCT x.kind || ': ' || x.last_error, E'\n') FILTER (WHERE x.last_error <> '') AS starvation
     FROM process x) AS w
 CROSS JOIN (
   SELECT count(*) AS concurrency_pools, count(*) FILTER (WHERE u.running = 0) AS idle_pools,
          count(*) FILTER (WHERE u.running > 0 AND u.running < u.max_workers) AS running_pools,
          count(*) FILTER (WHERE u.running >= u.max_workers) AS full_pools,
          coalesce(sum(u.running), 0) AS tracked_running_tasks
     FROM async.pool_use() u) AS p
 CROSS JOIN (
   SELECT count(*) AS unfinished_tasks,
          count(*) FILTER (WHERE x.started IS NULL AND x.yielded IS NULL) AS pending_tasks,
          count(*) FILTER (WHERE x.started IS NULL AND x.yielded IS NOT NULL) AS yielded_tasks,
          count(*) FILTER (WHERE x.started IS NOT NULL) AS running_tasks,
          async.interval_pretty(max(clock_timestamp() - x.entered) FILTER (WHERE x.started IS NULL AND x.yielded IS NULL))
            AS longest_pending_task_duration
     FROM open_task x) AS o
  LEFT JOIN longest g ON true;
COMMENT ON VIEW async.v_server_info IS
  'One row on the engine in this database. server_pid: the dispatcher; server_status in words; adopted: see async.adopt; '
  'starvation: what the processes last complained of, such as max_worker_processes; queued_tasks: held by the dispatcher; '
  '*_tasks counts: of the tasks you may read. Nothing runs while library_version and extension_version differ. The *_time '
  'columns of the SQL original are always null: there is no loop.';
