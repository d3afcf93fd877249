-- Checks of the installed extension that the catalogue can answer. One row a fault.
\pset tuples_only on
\pset format unaligned
\pset fieldsep ': '
SET search_path = pg_catalog;
WITH member AS (
  SELECT d.classid, d.objid, d.objsubid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgflow'
), routine AS (
  SELECT p.*, l.lanname, p.oid::regprocedure::text AS name
  FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
  JOIN pg_language l ON l.oid = p.prolang
)
-- A body that was parsed when it was created means the same under any search_path; a procedure that commits cannot have
-- a SET clause and qualifies every name, operators too.
SELECT r.name, 'does not pin search_path = pg_catalog, pg_temp' FROM routine r
WHERE r.lanname NOT IN ('c', 'internal') AND r.prosqlbody IS NULL AND NOT (r.prokind = 'p' AND r.prosrc ~ '\mCOMMIT\M')
  AND NOT coalesce(r.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
  -- What only functions that pin it call, and the dispatcher, which has: the cascade, where a SET a call costs a third.
  AND NOT (r.oid::regproc::text = ANY (ARRAY[
    'flow.settle', 'flow.propagate', 'flow.open_nodes', 'flow.start_nodes', 'flow.insert_node_tasks', 'flow.release_steps',
    'flow.release_held', 'flow.end_parents', 'flow.stop_tasks', 'flow.time_out_nodes', 'flow.task_form'])
    AND NOT has_function_privilege('public', r.oid, 'EXECUTE'))
UNION ALL
SELECT r.name, 'is SECURITY DEFINER: use as_owner' FROM routine r WHERE r.prosecdef
UNION ALL
SELECT r.name, 'is executable by everybody, though internal' FROM routine r
WHERE obj_description(r.oid, 'pg_proc') ~* '^internal' AND r.prokind <> 'a' AND has_function_privilege('public', r.oid, 'EXECUTE')
UNION ALL
SELECT pg_describe_object(m.classid, m.objid, 0), 'has no COMMENT' FROM member m
LEFT JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
LEFT JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
LEFT JOIN pg_class tc ON tc.oid = t.typrelid
WHERE m.classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)
  AND coalesce(c.relkind IN ('r', 'v'), true)                                   -- sequences and indexes go without
  AND coalesce(t.typtype IN ('e', 'd') OR tc.relkind = 'c', t.oid IS NULL)      -- so do row and array types
  AND obj_description(m.objid, m.classid::regclass::name) IS NULL
UNION ALL
SELECT c.oid::regclass::text, 'is a view without security_invoker' FROM member m
JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
WHERE c.relkind = 'v' AND NOT coalesce(c.reloptions, '{}') @> ARRAY['security_invoker=true']
ORDER BY 2, 1;
