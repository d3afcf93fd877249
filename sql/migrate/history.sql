-- A part of from_original.sql, not to be run alone.
-- History. Runs point to the configured version where they had its nodes and dependencies, else to one that is made for them.
CREATE TEMP TABLE m_task ON COMMIT DROP AS
SELECT t.*, f.flow_id, t.task_data->>'node' AS node, coalesce(t.task_data->'step_arguments', '{}') AS arguments,
       f.flow_id IS NOT NULL AND coalesce(t.task_data->'step_arguments', '{}') <> '{}' AS is_step,
       CASE WHEN t.processed IS NULL THEN 'CANCELED'
            WHEN t.finish_status IN ('FINISHED', 'FAILED', 'CANCELED', 'TIMED_OUT', 'DOA') THEN t.finish_status
            WHEN t.failed THEN 'FAILED' ELSE 'FINISHED' END::async.finish_status_t AS status
  FROM old_async_task t
  LEFT JOIN old_flow_flow f ON f.flow_id = (t.task_data->>'flow_id')::BIGINT;

CREATE INDEX ON m_task (flow_id, node) WHERE NOT is_step;
CREATE TEMP TABLE m_dependency ON COMMIT DROP AS
SELECT d.flow_id, d.parent, d.child, coalesce(d.continue_on_failure, false) AS continue_on_failure FROM old_flow_dependency d;
CREATE INDEX ON m_dependency (flow_id);

CREATE TEMP TABLE m_run_node ON COMMIT DROP AS
SELECT t.flow_id, t.node FROM m_task t WHERE t.flow_id IS NOT NULL AND t.node IS NOT NULL
UNION SELECT d.flow_id, x.node FROM m_dependency d, LATERAL (VALUES (d.parent), (d.child)) x(node);
CREATE INDEX ON m_run_node (flow_id);
ANALYZE m_task, m_dependency, m_run_node;

CREATE TEMP TABLE m_run ON COMMIT DROP AS
SELECT f.flow_id, f.flow, md5(concat_ws(E'\n', n.nodes, e.edges)) AS shape
  FROM old_flow_flow f
  LEFT JOIN (SELECT x.flow_id, string_agg(x.node, ',' ORDER BY x.node COLLATE "C") AS nodes
               FROM m_run_node x GROUP BY x.flow_id) n ON n.flow_id = f.flow_id
  LEFT JOIN (SELECT x.flow_id, string_agg(x.parent || '>' || x.child || x.continue_on_failure, ','
                                          ORDER BY x.parent COLLATE "C", x.child COLLATE "C") AS edges
               FROM m_dependency x GROUP BY x.flow_id) e ON e.flow_id = f.flow_id;
ANALYZE m_run;
CREATE TEMP TABLE m_shape ON COMMIT DROP AS
SELECT r.flow, r.shape, min(r.flow_id) AS flow_id, c.definition_id
  FROM m_run r
  LEFT JOIN (
    SELECT c.flow, c.definition_id, md5(concat_ws(E'\n', (
             SELECT string_agg(n.node, ',' ORDER BY n.node COLLATE "C")
               FROM flow.definition_node n WHERE n.definition_id = c.definition_id), (
             SELECT string_agg(d.parent || '>' || d.child || d.continue_on_failure, ','
                               ORDER BY d.parent COLLATE "C", d.child COLLATE "C")
               FROM flow.dependency_configuration d WHERE d.flow = c.flow))) AS shape
      FROM flow.configured c) AS c ON c.flow = r.flow AND c.shape = r.shape
 GROUP BY r.flow, r.shape, c.definition_id;

CREATE TEMP TABLE m_node ON COMMIT DROP AS
SELECT s.flow, s.shape, n.node, 0 AS rank FROM m_shape s JOIN m_run_node n ON n.flow_id = s.flow_id WHERE s.definition_id IS NULL;
CREATE TEMP TABLE m_edge ON COMMIT DROP AS
SELECT s.flow, s.shape, d.parent, d.child, d.continue_on_failure
  FROM m_shape s JOIN m_dependency d ON d.flow_id = s.flow_id WHERE s.definition_id IS NULL;
DO $$
DECLARE
  _longest INT := (SELECT max(c.nodes) FROM (SELECT count(*) AS nodes FROM m_node GROUP BY flow, shape) c);
BEGIN
  FOR _round IN 1 .. coalesce(_longest, 0) LOOP  -- the original ran cycles too: then the bound ends it
    UPDATE m_node n SET rank = p.rank
      FROM (SELECT e.flow, e.shape, e.child, max(x.rank) + 1 AS rank
              FROM m_edge e JOIN m_node x ON x.flow = e.flow AND x.shape = e.shape AND x.node = e.parent GROUP BY 1, 2, 3) p
     WHERE p.flow = n.flow AND p.shape = n.shape AND p.child = n.node AND n.rank < p.rank;
    EXIT WHEN NOT FOUND;
  END LOOP;
END
$$;

-- A routine as the engine stores it, or null: a routine that is gone can be part of history, but cannot be run again.
CREATE FUNCTION pg_temp.resolved(_routine TEXT) RETURNS TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT format('%I.%I', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE p.oid = to_regprocedure(_routine || '(flow.callback_arguments_t)'));
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$$;

DO $$
DECLARE
  _shape RECORD;
BEGIN
  FOR _shape IN SELECT s.flow, s.shape, s.flow_id FROM m_shape s WHERE s.definition_id IS NULL ORDER BY s.flow_id LOOP
    WITH made AS (
      INSERT INTO flow.definition (flow, configuration, concurrency_group_routine, author, created)
      SELECT _shape.flow, jsonb_build_object('nodes', coalesce((
               SELECT jsonb_agg(pg_temp.node_configuration(n.node, (
                        SELECT jsonb_agg(jsonb_build_object(
                                 'parent', e.parent, 'continue_on_failure', e.continue_on_failure) ORDER BY e.parent)
                          FROM m_edge e WHERE e.flow = n.flow AND e.shape = n.shape AND e.child = n.node))
                      ORDER BY n.rank, n.node)
                 FROM m_node n WHERE n.flow = _shape.flow AND n.shape = _shape.shape), '[]')),
             NULL, s.owner, f.created
        FROM migration_settings s, old_flow_flow f WHERE f.flow_id = _shape.flow_id
      RETURNING definition_id)
    UPDATE m_shape m SET definition_id = made.definition_id FROM made WHERE m.flow = _shape.flow AND m.shape = _shape.shape;
  END LOOP;
END
$$;
INSERT INTO flow.definition_node (
  definition_id, node_no, node, rank, target, routine, routine_resolved, step_routine, step_routine_resolved, priority,
  all_steps_must_complete, empty, steps_to_flow, synchronous, node_timeout, step_timeout, count_parents, steps)
SELECT s.definition_id, row_number() OVER (PARTITION BY s.definition_id ORDER BY n.rank, n.node) - 1, n.node, n.rank,
       coalesce(async.target_name(o.target), o.target), r.own, pg_temp.resolved(r.own), r.step, pg_temp.resolved(r.step),
       coalesce(o.priority, 0), coalesce(o.all_steps_must_complete, true), coalesce(o.empty, false), o.steps_to_flow,
       coalesce(o.synchronous, false), o.node_timeout, o.step_timeout,
       (SELECT count(*) FROM m_edge e WHERE e.flow = n.flow AND e.shape = n.shape AND e.child = n.node),
       (SELECT jsonb_agg(x.arguments ORDER BY x.arguments) FROM old_flow_step x WHERE x.node = n.node AND x.arguments <> '{}')
  FROM m_node n
  JOIN m_shape s ON s.flow = n.flow AND s.shape = n.shape
  LEFT JOIN old_flow_node o ON o.node = n.node
  CROSS JOIN LATERAL (SELECT coalesce(nullif(o.node_routine, ''), nullif(o.routine, ''), n.node) AS own,
                             coalesce(nullif(o.step_routine, ''), nullif(o.routine, ''), n.node) AS step) r;
INSERT INTO flow.definition_edge (definition_id, parent_no, node_no, continue_on_failure)
SELECT s.definition_id, p.node_no, c.node_no, e.continue_on_failure
  FROM m_edge e
  JOIN m_shape s ON s.flow = e.flow AND s.shape = e.shape
  JOIN flow.definition_node p ON p.definition_id = s.definition_id AND p.node = e.parent
  JOIN flow.definition_node c ON c.definition_id = s.definition_id AND c.node = e.child;

INSERT INTO async.task (
  task_id, target, priority, run_as, entered, consumed, first_consumed, yielded, processed, finish_status, failed,
  processing_error, times_up, attempt, asynchronous_finish, track_yielded, is_step, flow_id, node_no, concurrency_pool,
  manual_timeout, source, query, task_data)
SELECT t.task_id, coalesce(async.target_name(t.target), t.target), coalesce(t.priority, 0), s.owner,
       coalesce(t.entered, t.consumed, t.processed, now()), w.consumed, w.consumed, t.yielded, coalesce(t.processed, now()),
       t.status, t.status <> 'FINISHED',
       CASE WHEN t.processed IS NULL THEN 'abandoned: open when the installation was taken over' ELSE t.processing_error END,
       t.times_up, (w.consumed IS NOT NULL)::INT, coalesce(t.asynchronous_finish, false), coalesce(t.track_yielded, false),
       t.is_step, t.flow_id, n.node_no, nullif(t.concurrency_pool, t.target), t.manual_timeout, t.source,
       CASE WHEN t.flow_id IS NULL THEN t.query END,
       CASE WHEN t.flow_id IS NULL THEN t.task_data WHEN t.is_step THEN t.arguments END
  FROM m_task t
 CROSS JOIN migration_settings s
 CROSS JOIN LATERAL (SELECT CASE WHEN t.status <> 'DOA' THEN t.consumed END AS consumed) w  -- that one never ran
  LEFT JOIN m_run r ON r.flow_id = t.flow_id
  LEFT JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
  LEFT JOIN flow.definition_node n ON n.definition_id = h.definition_id AND n.node = t.node
 ORDER BY t.task_id;

INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash)
SELECT t.flow_id, t.node_no, t.task_id, sha256(convert_to(t.task_data::TEXT, 'UTF8'))
  FROM async.task t WHERE t.is_step AND t.flow_id IS NOT NULL AND t.node_no IS NOT NULL ORDER BY t.task_id
ON CONFLICT DO NOTHING;

INSERT INTO flow.flow_node (flow_id, node_no, node, state, excluded, parents_open, task_id, opened, ended, error)
SELECT f.flow_id, d.node_no, d.node, v.state, v.state = 'N', 0, t.task_id,
       CASE WHEN v.state NOT IN ('K', 'N') THEN coalesce(t.consumed, t.entered) END,
       coalesce(t.processed, f.processed, now()), CASE WHEN v.state IN ('E', 'T', 'C') THEN t.processing_error END
  FROM old_flow_flow f
  JOIN m_run r ON r.flow_id = f.flow_id
  JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
  JOIN flow.definition_node d ON d.definition_id = h.definition_id
  LEFT JOIN async.task t ON t.task_id = (
    SELECT max(m.task_id) FROM m_task m WHERE m.flow_id = f.flow_id AND m.node = d.node AND NOT m.is_step)
 CROSS JOIN LATERAL (SELECT CASE
     WHEN f.only_these_nodes IS NOT NULL AND d.node <> ALL (f.only_these_nodes)
      AND coalesce(t.finish_status, 'FINISHED') = 'FINISHED' THEN 'N'
     WHEN t.task_id IS NULL THEN CASE WHEN f.processed IS NULL THEN 'C' ELSE 'K' END
     ELSE CASE t.finish_status WHEN 'FINISHED' THEN 'F' WHEN 'DOA' THEN 'K' WHEN 'CANCELED' THEN 'C'
                               WHEN 'TIMED_OUT' THEN 'T' ELSE 'E' END END AS state) v;

-- Who kept a node from running. A node that nobody kept, in a run that is over, was cancelled with it.
ANALYZE async.task, flow.flow_node, flow.flow_step, flow.definition_node, flow.definition_edge;
UPDATE flow.flow_node n SET blocked_by = b.parent, error = format('not run because %s failed', b.parent)
  FROM (SELECT c.flow_id, c.node_no, min(p.node) AS parent
          FROM flow.flow_node c
          JOIN m_run r ON r.flow_id = c.flow_id
          JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
          JOIN flow.definition_edge e ON e.definition_id = h.definition_id AND e.node_no = c.node_no AND NOT e.continue_on_failure
          JOIN flow.flow_node p ON p.flow_id = c.flow_id AND p.node_no = e.parent_no AND p.state::"char" IN ('E', 'K', 'C', 'T')
         WHERE c.state::"char" = 'K' GROUP BY 1, 2) b
 WHERE n.flow_id = b.flow_id AND n.node_no = b.node_no;
UPDATE flow.flow_node SET state = 'C' WHERE state::"char" = 'K' AND blocked_by IS NULL;

INSERT INTO flow.flow (
  flow_id, flow, definition_id, run_as, arguments, created, processed, cancelled, parent_task_id, parent_flow_id,
  only_these_nodes, force_priority, count_nodes, count_finished_nodes, count_failed_nodes, first_error)
SELECT f.flow_id, f.flow, h.definition_id, s.owner, coalesce(f.arguments, '{}'), coalesce(f.created, f.processed, now()),
       coalesce(f.processed, now()), f.processed IS NULL OR n.cancelled, f.parent_task_id, f.parent_flow_id,
       f.only_these_nodes, f.force_priority, n.nodes, n.nodes, n.failed,
       coalesce(f.first_error, CASE WHEN f.processed IS NULL THEN 'abandoned: open when the installation was taken over' END)
  FROM old_flow_flow f
  JOIN m_run r ON r.flow_id = f.flow_id
  JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
 CROSS JOIN migration_settings s
 CROSS JOIN LATERAL (
   SELECT count(*) AS nodes, count(*) FILTER (WHERE x.state::"char" IN ('E', 'K', 'C', 'T')) AS failed,
          coalesce(bool_or(x.state::"char" = 'C') AND NOT bool_or(x.state::"char" IN ('E', 'T')), false) AS cancelled
     FROM flow.flow_node x WHERE x.flow_id = f.flow_id) n
 ORDER BY f.flow_id;

WITH RECURSIVE below AS (
  SELECT f.flow_id, 0 AS depth FROM flow.flow f
   WHERE f.parent_flow_id IS NULL OR NOT EXISTS (SELECT FROM flow.flow p WHERE p.flow_id = f.parent_flow_id)
  UNION ALL SELECT f.flow_id, b.depth + 1 FROM below b JOIN flow.flow f ON f.parent_flow_id = b.flow_id WHERE b.depth < 1000)
UPDATE flow.flow f SET depth = b.depth FROM below b WHERE b.flow_id = f.flow_id AND b.depth > 0;

SELECT setval(n.sequence, greatest(1, o.last, n.highest))
  FROM (VALUES ('async.task', 'async.task_id_seq'::REGCLASS, (SELECT max(t.task_id) FROM async.task t)),
               ('flow.flow', 'flow.flow_id_seq', (SELECT max(f.flow_id) FROM flow.flow f))) AS n(name, sequence, highest)
  JOIN old_sequence o USING (name) \g /dev/null
INSERT INTO report (kind, name, outcome, reason)
SELECT 'history', x.name, 'done', x.rows || ' rows'
  FROM (VALUES ('runs', (SELECT count(*) FROM flow.flow)), ('nodes', (SELECT count(*) FROM flow.flow_node)),
               ('steps', (SELECT count(*) FROM flow.flow_step)), ('tasks', (SELECT count(*) FROM async.task))) AS x(name, rows)
UNION ALL
SELECT 'history', 'open work', 'look', x.runs || ' runs and ' || x.tasks || ' tasks were open and are shown as cancelled'
  FROM (SELECT (SELECT count(*) FROM old_flow_flow f WHERE f.processed IS NULL) AS runs,
               (SELECT count(*) FROM m_task t WHERE t.processed IS NULL) AS tasks) x WHERE x.runs + x.tasks > 0
UNION ALL
SELECT 'history', 'tasks of runs that are gone', 'look', count(*) || ' tasks, kept as tasks of no flow'
  FROM m_task t WHERE t.flow_id IS NULL AND t.task_data->>'flow_id' IS NOT NULL HAVING count(*) > 0;
