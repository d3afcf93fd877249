-- A part of from_original.sql, not to be run alone.
-- What is left to do: rights, schedules, and whatever still refers to the old schemas.
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'grant', g.role, 'look', 'it could use the old schemas', format('GRANT flow_user TO %I (sees and runs its own flows), or flow_monitor, or flow_admin', g.role)
  FROM (SELECT DISTINCT r.rolname AS role
          FROM pg_namespace n
          JOIN migration_settings s ON n.nspname IN (s.async_old, s.flow_old)
          CROSS JOIN LATERAL aclexplode(n.nspacl) a
          JOIN pg_roles r ON r.oid = a.grantee
         WHERE NOT r.rolsuper) g;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', x.name, 'look', 'still refers to ' || min(x.to_what), 'Make it anew on schemas async and flow: DROP SCHEMA … CASCADE would drop it.'
  FROM (
SELECT CASE d.classid WHEN 'pg_rewrite'::REGCLASS
            THEN (SELECT format('%s %s', CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, c.oid::REGCLASS)
                    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid)
            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS name,
       pg_describe_object(d.refclassid, d.refobjid, 0) AS to_what
  FROM pg_depend d
  JOIN (SELECT 'pg_class'::REGCLASS AS class, c.oid, c.relnamespace AS schema FROM pg_class c
        UNION ALL SELECT 'pg_proc'::REGCLASS, p.oid, p.pronamespace FROM pg_proc p
        UNION ALL SELECT 'pg_type'::REGCLASS, t.oid, t.typnamespace FROM pg_type t) AS o ON o.class = d.refclassid AND o.oid = d.refobjid
  JOIN migration_settings s ON o.schema IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)))
 CROSS JOIN LATERAL (SELECT CASE d.classid
     WHEN 'pg_rewrite'::REGCLASS THEN (SELECT c.relnamespace FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid)
     WHEN 'pg_class'::REGCLASS THEN (SELECT c.relnamespace FROM pg_class c WHERE c.oid = d.objid)
     WHEN 'pg_proc'::REGCLASS THEN (SELECT p.pronamespace FROM pg_proc p WHERE p.oid = d.objid)
     WHEN 'pg_constraint'::REGCLASS THEN (SELECT k.connamespace FROM pg_constraint k WHERE k.oid = d.objid)
     WHEN 'pg_policy'::REGCLASS THEN (SELECT c.relnamespace FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.oid = d.objid)
     WHEN 'pg_attrdef'::REGCLASS THEN (SELECT c.relnamespace FROM pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid WHERE a.oid = d.objid)
   END AS schema) w
 WHERE w.schema IS NOT NULL AND d.deptype IN ('n', 'a')
   AND w.schema NOT IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)), pg_my_temp_schema())
) AS x WHERE x.to_what NOT LIKE 'index %' GROUP BY x.name;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', format('trigger %I on %s', g.tgname, g.tgrelid::REGCLASS), 'look', 'it fires on a table of the old library only',
       'Runs and tasks are in flow.flow and async.task; a node of its own at the end of a flow is the better place.'
  FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_proc p ON p.oid = g.tgfoid, migration_settings s
 WHERE NOT g.tgisinternal AND c.relnamespace IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)))
   AND p.pronamespace NOT IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)));
DO $$
BEGIN
  IF to_regclass('cron.job') IS NOT NULL THEN
    EXECUTE $q$ INSERT INTO report (kind, name, outcome, reason, advice)
      SELECT 'schedule', 'cron job ' || j.jobid, 'look', j.command, 'Unschedule it: a background worker does this now.'
        FROM cron.job j WHERE j.command ~* 'async\.main' $q$;
  END IF;
  IF current_setting('shared_preload_libraries') !~ '\mpgflow\M' THEN
    INSERT INTO report (kind, name, outcome, reason, advice) VALUES
      ('server', 'shared_preload_libraries', 'look', 'pgflow is not in it: nothing runs', 'Add pgflow in postgresql.conf and restart.');
  END IF;
END
$$;
