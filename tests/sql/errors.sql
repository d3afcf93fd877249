-- The server's own errors pass the library's hooks whole: their SQLSTATE, their context, the names of constraints.
CREATE PROCEDURE raises() LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'ZZ001'; END $$;
CREATE TABLE checked (i INT CONSTRAINT positive CHECK (i > 0));

DO $$
DECLARE
  _constraint TEXT;
  _context TEXT;
BEGIN
  BEGIN
    CALL raises();
    ASSERT false, 'nothing was raised';
  EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
    GET STACKED DIAGNOSTICS _context = PG_EXCEPTION_CONTEXT;
    ASSERT _context LIKE '%raises()%', _context;
  END;
  BEGIN
    EXECUTE 'DO $x$ BEGIN INSERT INTO checked VALUES (-1); END $x$';
    ASSERT false, 'nothing was raised';
  EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS _constraint = CONSTRAINT_NAME;
    ASSERT _constraint = 'positive', _constraint;
  END;
  -- And what is behind as_owner: the SQLSTATE and the place in it.
  BEGIN
    PERFORM flow.cancel(-1);
    ASSERT false, 'nothing was raised';
  EXCEPTION WHEN undefined_object THEN
    GET STACKED DIAGNOSTICS _context = PG_EXCEPTION_CONTEXT;
    ASSERT _context LIKE '%flow.cancel_as%' OR _context LIKE '%require_run%', _context;
  END;
END
$$;
