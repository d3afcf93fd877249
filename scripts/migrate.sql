-- Takes an installation of the SQL library pgflow/pgasync over, in one transaction: see docs/migrating.md.
-- Usage, as a superuser, with the old main loop stopped: psql -d DATABASE [-v owner=ROLE] -f scripts/migrate.sql
--   owner  the role that is to own the configured flows, a member of flow_user (default: you)
-- Renames the schemas flow and async to flow_old and async_old, creates the extension, creates the callbacks again (they
-- take an argument of a type of the old schema), and imports settings, targets, pools and flows. If anything is wrong with
-- one of them, it says what, and changes nothing.
\set ON_ERROR_STOP on
\if :{?owner} \else \set owner '' \endif
BEGIN;
SET LOCAL client_min_messages = warning;

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pgflow') THEN
    RAISE EXCEPTION 'the extension pgflow is already here';
  ELSIF to_regclass('flow.flow') IS NULL OR to_regclass('async.task') IS NULL THEN
    RAISE EXCEPTION 'there is no installation of the SQL library here: flow.flow or async.task is missing';
  ELSIF EXISTS (SELECT FROM flow.flow WHERE processed IS NULL) THEN
    RAISE EXCEPTION 'runs are open' USING HINT = 'Let them end, or SELECT flow.cancel(flow_id) FROM flow.flow WHERE processed IS NULL.';
  END IF;
END
$$;

-- What is taken along. Only keys with a meaning here; what nobody had set is left to its default.
CREATE TEMP TABLE old_flow ON COMMIT DROP AS SELECT key AS flow, value AS configuration FROM jsonb_each(flow.configuration());
CREATE FUNCTION pg_temp.known(_row JSONB, VARIADIC _keys TEXT[]) RETURNS JSONB LANGUAGE sql AS $$
  SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(jsonb_strip_nulls(_row)) WHERE key = ANY (_keys)
$$;
CREATE TEMP TABLE old_settings ON COMMIT DROP AS
SELECT jsonb_build_object(
  'control', (SELECT coalesce((SELECT pg_temp.known(to_jsonb(c), 'self_target', 'self_connection_string', 'task_keep_duration',
      'default_timeout', 'default_concurrency_pool_workers', 'workers') FROM async.control c LIMIT 1), '{}')),
  'targets', (SELECT coalesce(jsonb_agg(pg_temp.known(to_jsonb(t), 'target', 'max_concurrency', 'connection_string',
      'asynchronous_finish', 'default_timeout', 'concurrency_track_yielded')), '[]') FROM async.target t),
  'concurrency_pools', (SELECT coalesce(jsonb_agg(pg_temp.known(to_jsonb(p), 'concurrency_pool', 'max_workers')), '[]')
      FROM async.concurrency_pool p WHERE p.concurrency_pool NOT IN (SELECT target FROM async.target))) AS configuration;

-- Everything outside the library that takes callback_arguments_t: its text, which names the type with its schema.
SET LOCAL search_path = pg_catalog;
CREATE TEMP TABLE old_callback ON COMMIT DROP AS
SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS definition, p.prokind, p.proacl,
  pg_get_userbyid(p.proowner) AS owner
FROM pg_proc p
WHERE 'flow.callback_arguments_t'::regtype = ANY (p.proargtypes::oid[])
  AND p.pronamespace NOT IN ('flow'::regnamespace, 'async'::regnamespace);

ALTER SCHEMA flow RENAME TO flow_old;
ALTER SCHEMA async RENAME TO async_old;
CREATE EXTENSION pgflow;

DO $$
DECLARE
  _callback RECORD;
  _kind     TEXT;
  _grant    RECORD;
BEGIN
  FOR _callback IN SELECT * FROM old_callback LOOP
    EXECUTE _callback.definition;
    _kind := CASE _callback.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END;
    EXECUTE format('ALTER %s %s OWNER TO %I', _kind, _callback.name, _callback.owner);
    IF _callback.proacl IS NOT NULL THEN
      EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', _kind, _callback.name);
      FOR _grant IN SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
                    FROM aclexplode(_callback.proacl) WHERE privilege_type = 'EXECUTE' LOOP
        EXECUTE format('GRANT EXECUTE ON %s %s TO %s', _kind, _callback.name, _grant.role);
      END LOOP;
    END IF;
  END LOOP;
END
$$;

SELECT count(async.configure(configuration)) AS settings FROM old_settings \gset
-- Routines without a schema are found by search_path: that of the database, as for the users of the old library.
RESET search_path;
GRANT SELECT ON old_flow TO PUBLIC;
SELECT :'owner' <> '' AS has_owner \gset
\if :has_owner
SET LOCAL ROLE :"owner";
\endif
SELECT count(flow.configure_flow(flow, configuration)) AS flows FROM old_flow \gset
RESET ROLE;
SELECT (SELECT count(*) FROM old_callback) AS callbacks, (SELECT count(*) FROM flow_old.flow) AS runs,
  (SELECT jsonb_array_length(configuration->'targets') FROM old_settings) AS targets \gset
COMMIT;
\echo 'taken over:' :flows 'flows,' :targets 'targets,' :callbacks 'callbacks; the history of' :runs 'runs stays in flow_old and async_old'
