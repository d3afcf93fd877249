-- A part of from_original.sql, not to be run alone.
-- Users' routines and columns of the old types follow to the new ones: above all callbacks, which take
-- flow.callback_arguments_t. A routine is made anew from its own definition; owner, grants and comment stay.
CREATE TEMP VIEW old_schema AS
SELECT n.oid, CASE n.nspname WHEN s.flow_old THEN 'flow' ELSE 'async' END::REGNAMESPACE AS new
  FROM pg_namespace n JOIN migration_settings s ON n.nspname IN (s.async_old, s.flow_old);
CREATE TEMP VIEW old_type AS
SELECT t.oid FROM pg_type t JOIN old_schema s ON s.oid = t.typnamespace
  JOIN pg_type n ON n.typname = t.typname AND n.typnamespace = s.new;

CREATE FUNCTION pg_temp.renamed(_text TEXT) RETURNS TEXT LANGUAGE sql STABLE AS $$
  SELECT replace(replace(_text, quote_ident(s.flow_old) || '.', 'flow.'), quote_ident(s.async_old) || '.', 'async.')
    FROM migration_settings s;
$$;

CREATE FUNCTION pg_temp.role_name(_role OID) RETURNS TEXT LANGUAGE sql STABLE AS $$
  SELECT CASE _role WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(_role)) END;
$$;

-- search_path is pg_catalog here, so that definitions come with all names qualified.
CREATE FUNCTION pg_temp.move_routine(_routine OID) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  _is         RECORD;
  _definition TEXT := pg_get_functiondef(_routine);
  _body_at    INT;
  _new        REGPROCEDURE;
  _grant      RECORD;
BEGIN
  SELECT p.*, p.prosqlbody IS NOT NULL AS parsed, obj_description(p.oid, 'pg_proc') AS comment,
         pg_get_userbyid(p.proowner) AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl,
         -- A name in text is resolved when it is called: only what the catalogue has parsed must be renamed.
         pg_temp.renamed(format('%s(%s)', p.oid::REGPROC, pg_get_function_identity_arguments(p.oid))) AS signature
    INTO _is FROM pg_proc p WHERE p.oid = _routine;
  _body_at := strpos(_definition, E'\nAS ');
  IF _is.parsed OR _body_at = 0 THEN
    _definition := pg_temp.renamed(_definition);
  ELSE
    _definition := pg_temp.renamed(left(_definition, _body_at)) || substr(_definition, _body_at + 1);
  END IF;
  EXECUTE format('DROP ROUTINE %s', _routine::REGPROCEDURE);
  EXECUTE _definition;
  SELECT p.oid INTO STRICT _new FROM pg_proc p
   WHERE p.pronamespace = _is.pronamespace AND p.proname = _is.proname
     AND format('%s(%s)', p.oid::REGPROC, pg_get_function_identity_arguments(p.oid)) = _is.signature;
  EXECUTE format('ALTER ROUTINE %s OWNER TO %I', _new, _is.owner);
  FOR _grant IN
    SELECT DISTINCT g.grantee FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g WHERE p.oid = _new
  LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %s', _new, pg_temp.role_name(_grant.grantee));
  END LOOP;
  FOR _grant IN SELECT * FROM aclexplode(_is.acl) LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s%s', _new, pg_temp.role_name(_grant.grantee),
      CASE WHEN _grant.is_grantable AND _grant.grantee <> _is.proowner THEN ' WITH GRANT OPTION' ELSE '' END);
  END LOOP;
  IF _is.comment IS NOT NULL THEN
    EXECUTE format('COMMENT ON ROUTINE %s IS %L', _new, _is.comment);
  END IF;
END
$$;

SET LOCAL search_path = pg_catalog;
SET LOCAL check_function_bodies = off;
DO $$
DECLARE
  _found  RECORD;
  _reason TEXT;
BEGIN
  FOR _found IN
    SELECT c.oid::REGCLASS AS relation, a.attname, pg_temp.renamed(format_type(a.atttypid, a.atttypmod)) AS type
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'c') AND NOT c.relispartition
      JOIN pg_type t ON t.oid = a.atttypid
     WHERE (a.atttypid IN (SELECT o.oid FROM pg_temp.old_type o) OR t.typelem IN (SELECT o.oid FROM pg_temp.old_type o))
       AND NOT a.attisdropped AND c.relpersistence <> 't'
       AND c.relnamespace NOT IN (SELECT o.oid FROM pg_temp.old_schema o)
  LOOP
    BEGIN
      IF (SELECT c.relkind FROM pg_class c WHERE c.oid = _found.relation) = 'c' THEN
        EXECUTE format('ALTER TYPE %s ALTER ATTRIBUTE %I TYPE %s', _found.relation, _found.attname, _found.type);
      ELSE
        EXECUTE format('ALTER TABLE %1$s ALTER COLUMN %2$I TYPE %3$s USING %2$I::TEXT::%3$s',
                       _found.relation, _found.attname, _found.type);
      END IF;
      INSERT INTO pg_temp.report (kind, name, outcome)
      VALUES ('column', format('%s.%I', _found.relation, _found.attname), 'done');
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
      VALUES ('column', format('%s.%I', _found.relation, _found.attname), 'refused', SQLERRM,
              format('Change its type to %s yourself before you drop the old schemas.', _found.type));
    END;
  END LOOP;

  FOR _found IN
    SELECT p.oid, p.oid::REGPROCEDURE::TEXT AS name, p.prokind, x.extname
      FROM pg_proc p
      LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::REGCLASS AND d.objid = p.oid AND d.deptype = 'e'
      LEFT JOIN pg_extension x ON x.oid = d.refobjid
     WHERE EXISTS (SELECT FROM unnest(p.proargtypes || coalesce(p.proallargtypes, '{}') || p.prorettype) AS u(type)
                     JOIN pg_type t ON t.oid = u.type
                    WHERE t.oid IN (SELECT o.oid FROM pg_temp.old_type o) OR t.typelem IN (SELECT o.oid FROM pg_temp.old_type o))
       AND p.pronamespace NOT IN (SELECT o.oid FROM pg_temp.old_schema o)
     ORDER BY p.oid
  LOOP
    _reason := CASE WHEN _found.extname IS NOT NULL THEN 'it belongs to extension ' || _found.extname
                    WHEN _found.prokind NOT IN ('f', 'p') THEN 'it is an aggregate or window function' END;
    IF _reason IS NULL THEN
      BEGIN
        PERFORM pg_temp.move_routine(_found.oid);
        INSERT INTO pg_temp.report (kind, name, outcome) VALUES ('routine', pg_temp.renamed(_found.name), 'done');
        CONTINUE;
      EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS _reason = PG_EXCEPTION_DETAIL;
        _reason := concat_ws(E'\n', SQLERRM, nullif(_reason, ''));
      END;
    END IF;
    INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
    VALUES ('routine', _found.name, 'refused', _reason,
            'Create it again with the type of schema flow or async; then configure the flows that were refused for it.');
  END LOOP;

  -- Views on the library's views and tables would show the past for ever. CREATE OR REPLACE keeps owner and grants.
  FOR _found IN
    SELECT DISTINCT c.oid, c.oid::REGCLASS AS relation, array_to_string(c.reloptions, ', ') AS options
      FROM pg_class c
      JOIN pg_rewrite w ON w.ev_class = c.oid
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::REGCLASS AND d.objid = w.oid
       AND (d.refclassid, d.refobjid) IN (
         SELECT 'pg_class'::REGCLASS::OID, o.oid FROM pg_class o
          WHERE o.relnamespace IN (SELECT o.oid FROM pg_temp.old_schema o)
         UNION ALL SELECT 'pg_proc'::REGCLASS::OID, o.oid FROM pg_proc o
          WHERE o.pronamespace IN (SELECT o.oid FROM pg_temp.old_schema o))
     WHERE c.relkind = 'v' AND c.relpersistence <> 't'
       AND c.relnamespace NOT IN (SELECT o.oid FROM pg_temp.old_schema o)
     ORDER BY c.oid
  LOOP
    BEGIN
      EXECUTE format('CREATE OR REPLACE VIEW %s %s AS %s', _found.relation, 'WITH (' || _found.options || ')',
                     pg_temp.renamed(pg_get_viewdef(_found.oid)));
      INSERT INTO pg_temp.report (kind, name, outcome) VALUES ('view', _found.relation::TEXT, 'done');
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
      VALUES ('view', _found.relation::TEXT, 'refused', SQLERRM,
              'It still shows the old schemas. Make it anew: ' || pg_get_viewdef(_found.oid));
    END;
  END LOOP;
END
$$;
SELECT set_config('search_path', search_path, true) AS search_path FROM migration_settings \gset old_
