-- Object stores that results may go to: what needs one, dropping one. They are configured with async.configure.

-- What still needs a store; null: nothing. What is kept there could neither be read nor deleted without it.
CREATE FUNCTION async.store_uses(_store TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT nullif(concat_ws(' and ', (
      SELECT format('%s kept there', CASE count(*) WHEN 1 THEN '1 result that is' ELSE count(*) || ' results that are' END)
        FROM async.result r WHERE r.store = _store AND r.state <> 'gone'
      HAVING count(*) > 0), (
      SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                    || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM async.task t
       WHERE t.processed IS NULL AND t.options->'result'->>'store' = _store
         AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
      HAVING count(*) > 0), (
      SELECT format('%s open run%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(format('%s of flow "%s"', r.flow_id, r.flow)
                      ORDER BY r.flow_id))[:3]) || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM (SELECT DISTINCT f.flow_id, f.flow
                FROM flow.flow f
                JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.options->'result'->>'store' = _store
                JOIN flow.flow_node n ON n.flow_id = f.flow_id AND n.node_no = d.node_no AND n.ended IS NULL
               WHERE f.processed IS NULL) AS r
      HAVING count(*) > 0)), '');
$$;
COMMENT ON FUNCTION async.store_uses IS 'Internal: the results, open tasks and runs that need a store, in words; null: none.';

CREATE FUNCTION async.drop_store_as(_caller OID, _store TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _uses TEXT;
BEGIN
  PERFORM async.require_admin(_caller, 'drop a store');
  PERFORM FROM async.control FOR UPDATE;
  IF NOT EXISTS (SELECT FROM async.store s WHERE s.store = _store) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no store "%s"', left(_store, 80)), HINT = 'async.v_store lists the stores.';
  END IF;
  _uses := async.store_uses(_store);
  IF _uses IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('store "%s" is in use', _store), DETAIL = format('It is needed by %s.', _uses),
      HINT = 'Drop results with async.drop_result, or wait until they expire.';
  END IF;
  DELETE FROM async.store s WHERE s.store = _store;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.drop_store_as IS 'Internal: async.drop_store with the caller''s role.';

CREATE FUNCTION async.drop_store(_store TEXT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.drop_store IS
  'Drops a store. Raises object_in_use while results are kept there or open tasks and runs need it. Needs flow_admin.';

CREATE FUNCTION async.store_options_as(_caller OID, _store TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.masked_options(s.options) FROM async.store s WHERE s.store = _store;
$$;
COMMENT ON FUNCTION async.store_options_as IS 'Internal: async.store_options with the caller''s role.';

CREATE FUNCTION async.store_options(_store TEXT) RETURNS JSONB LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.store_options IS 'The options of a store without credentials.';
