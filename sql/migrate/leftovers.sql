-- A part of from_original.sql, not to be run alone.
-- What is left to do: rights, schedules, and whatever still refers to the old schemas.
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'grant', g.role, 'look', 'it could use the old schemas',
       format('GRANT flow_user TO %I (starts flows and sees its own), or flow_monitor, or flow_admin', g.role)
  FROM (SELECT DISTINCT r.rolname AS role
          FROM pg_namespace n
          JOIN old_schema s ON s.oid = n.oid
         CROSS JOIN LATERAL aclexplode(n.nspacl) a
          JOIN pg_roles r ON r.oid = a.grantee
         WHERE NOT r.rolsuper) g;

-- Whatever outside the old schemas needs something inside them.
CREATE TEMP VIEW old_object AS
SELECT 'pg_class'::REGCLASS AS class, c.oid FROM pg_class c WHERE c.relkind <> 'i' AND c.relnamespace IN (SELECT s.oid FROM old_schema s)
UNION ALL SELECT 'pg_proc'::REGCLASS, p.oid FROM pg_proc p WHERE p.pronamespace IN (SELECT s.oid FROM old_schema s)
UNION ALL SELECT 'pg_type'::REGCLASS, t.oid FROM pg_type t WHERE t.typnamespace IN (SELECT s.oid FROM old_schema s);

-- Rules, defaults and policies are in the schema of their relation; pg_identify_object says it of everything else.
CREATE FUNCTION pg_temp.schema_of(_class OID, _object OID, _part INT) RETURNS OID LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    (SELECT c.relnamespace FROM pg_class c WHERE c.oid = CASE _class
      WHEN 'pg_rewrite'::REGCLASS THEN (SELECT w.ev_class FROM pg_rewrite w WHERE w.oid = _object)
      WHEN 'pg_attrdef'::REGCLASS THEN (SELECT d.adrelid FROM pg_attrdef d WHERE d.oid = _object)
      WHEN 'pg_policy'::REGCLASS THEN (SELECT y.polrelid FROM pg_policy y WHERE y.oid = _object)
      WHEN 'pg_constraint'::REGCLASS THEN (SELECT k.conrelid FROM pg_constraint k WHERE k.oid = _object) END),
    to_regnamespace((pg_identify_object(_class, _object, _part)).schema));
$$;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', x.name, 'look', 'still refers to ' || min(x.needs),
       'Make it anew on schemas async and flow: DROP SCHEMA … CASCADE would drop it.'
  FROM (SELECT pg_describe_object(d.refclassid, d.refobjid, 0) AS needs,
               CASE d.classid WHEN 'pg_rewrite'::REGCLASS THEN (
                 SELECT pg_describe_object('pg_class'::REGCLASS, w.ev_class, 0) FROM pg_rewrite w WHERE w.oid = d.objid)
               ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS name
          FROM pg_depend d
          JOIN old_object o ON o.class = d.refclassid AND o.oid = d.refobjid
         CROSS JOIN LATERAL (SELECT pg_temp.schema_of(d.classid, d.objid, d.objsubid) AS oid) w
         WHERE d.deptype IN ('n', 'a') AND w.oid <> pg_my_temp_schema() AND w.oid NOT IN (SELECT s.oid FROM old_schema s)) AS x
 GROUP BY x.name;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', format('trigger %I on %s', g.tgname, g.tgrelid::REGCLASS), 'look', 'it fires on a table of the old library only',
       'Runs and tasks are in flow.flow and async.task now. A node at the end of a flow is the better place for what it does.'
  FROM pg_trigger g
  JOIN pg_class c ON c.oid = g.tgrelid AND c.relnamespace IN (SELECT s.oid FROM old_schema s)
  JOIN pg_proc p ON p.oid = g.tgfoid AND p.pronamespace NOT IN (SELECT s.oid FROM old_schema s)
 WHERE NOT g.tgisinternal;

DO $$
BEGIN
  IF to_regclass('cron.job') IS NOT NULL THEN
    EXECUTE $q$
      INSERT INTO report (kind, name, outcome, reason, advice)
      SELECT 'schedule', 'cron job ' || j.jobid, 'look', j.command, 'Unschedule it: a background worker does this now.'
        FROM cron.job j WHERE j.command ~* 'async\.main' $q$;
  END IF;
  IF current_setting('shared_preload_libraries') !~ '\mpgflow\M' THEN
    INSERT INTO report (kind, name, outcome, reason, advice)
    VALUES ('server', 'shared_preload_libraries', 'look', 'pgflow is not in it: nothing runs',
            'Add pgflow in postgresql.conf and restart.');
  END IF;
END
$$;
