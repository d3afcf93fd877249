-- The library and the SQL objects must be of the same version. This comes before everything that needs the library, in the
-- extension script and in every upgrade script.

DO $$
DECLARE
  -- While a script runs, the extension has the version that the script brings it to.
  _wanted CONSTANT TEXT := (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pgflow');
  _found TEXT := '0.1.0';
BEGIN
  BEGIN
    CREATE OR REPLACE FUNCTION async.library_version() RETURNS TEXT
      LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'library_version_wrapper';
    _found := async.library_version();
  EXCEPTION WHEN undefined_function THEN
    NULL;  -- the first version, which had no such function
  END;
  IF pg_catalog.string_to_array(_found, '.')::INT[] OPERATOR(pg_catalog.<) pg_catalog.string_to_array(_wanted, '.')::INT[] THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = pg_catalog.format('pgflow %s needs its own library, but %s is in use', _wanted, _found),
      DETAIL = 'The server keeps the library that it was started with (shared_preload_libraries). Nothing was changed.',
      HINT = 'Restart the server after installing the new files, then try again.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.library_version IS 'The version of the library that this session uses.';

CREATE FUNCTION async.version_mismatch() RETURNS TEXT
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'version_mismatch_wrapper';
COMMENT ON FUNCTION async.version_mismatch IS
  'What is to be done because library and extension are of different versions; null: they are of the same. Until it is done '
  'nothing runs in this database, and what would change something is refused.';
