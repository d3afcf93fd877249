-- pg_dump of a database with the extension keeps configuration, history and open runs. Two things make the restore work:
-- the tables' rows are marked as to be dumped, and rows that CREATE EXTENSION has just made give way to those of the dump.

DO $$
DECLARE
  _relation REGCLASS;
BEGIN
  FOR _relation IN
    SELECT c.oid FROM pg_catalog.pg_class c
     WHERE c.relkind IN ('r', 'S') AND c.relnamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
     ORDER BY c.oid
  LOOP
    PERFORM pg_catalog.pg_extension_config_dump(_relation, '');
  END LOOP;
END
$$;

-- Fires for async.control and async.engine_state (one row each) and for target 'local'.
CREATE FUNCTION async.give_way() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_TABLE_NAME = 'control' THEN
    DELETE FROM async.control;
  ELSIF TG_TABLE_NAME = 'engine_state' THEN
    DELETE FROM async.engine_state;
    PERFORM async.announce_settings();  -- the dispatcher must learn, before it sees a task, that this is a copy
  ELSE
    DELETE FROM async.target WHERE target = NEW.target;
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION async.give_way IS 'Internal: lets a restored row replace the one that CREATE EXTENSION made.';

CREATE TRIGGER give_way BEFORE INSERT ON async.control FOR EACH ROW EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.control IS 'For restores: see async.give_way.';
CREATE TRIGGER give_way BEFORE INSERT ON async.engine_state FOR EACH ROW EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.engine_state IS 'For restores: see async.give_way.';
CREATE TRIGGER give_way BEFORE INSERT ON async.target FOR EACH ROW WHEN (NEW.target = 'local')
  EXECUTE FUNCTION async.give_way();
COMMENT ON TRIGGER give_way ON async.target IS 'For restores: see async.give_way.';
