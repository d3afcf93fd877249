-- Tokens by which a system elsewhere ends the task it was asked to do: async.finish_by_token.
\set ON_ERROR_STOP 1
CREATE ROLE k_owner LOGIN IN ROLE flow_user;
CREATE ROLE k_other LOGIN IN ROLE flow_user;
SELECT async.configure('{"targets": [{"target": "out", "kind": "external"}]}');
GRANT CREATE ON SCHEMA public TO k_owner;

CREATE FUNCTION raised(_query TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE _query;
  RETURN 'nothing';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;

-- A task that somebody works on, as an accepted asynchronous request leaves it.
SET ROLE k_owner;
CREATE TABLE public.made AS SELECT async.push_task(async.task(NULL, 'out')) AS task_id;
RESET ROLE;
SELECT async.finish(ARRAY[task_id], 'YIELDED', NULL) FROM made;
CREATE TABLE token AS
SELECT task_id, async.make_callback_token(task_id, 1) AS first, NULL::TEXT AS second FROM made;
UPDATE token SET second = async.make_callback_token(task_id, 1);
GRANT SELECT ON token TO k_other;

DO $$
BEGIN
  ASSERT (SELECT first <> second AND length(first) = 64 FROM token);
  -- Only digests are kept, and nobody reads them.
  ASSERT NOT EXISTS (SELECT FROM async.callback_token k, token t WHERE strpos(k::TEXT, t.second) > 0);
END
$$;
SET ROLE k_other;
DO $$
BEGIN
  ASSERT raised('SELECT * FROM async.callback_token') LIKE '42501 %';
  ASSERT raised('SELECT async.make_callback_token(1, 1)') LIKE '42501 %';
  -- Without the token the task is not theirs to end; a token that was replaced, or none, ends nothing.
  ASSERT raised(format('SELECT async.finish(ARRAY[%s], ''FINISHED'', NULL)', (SELECT task_id FROM token))) LIKE '42501 %';
  ASSERT raised(format('SELECT async.finish_by_token(%L)', (SELECT first FROM token))) LIKE '28000 no task waits for this token%';
  ASSERT raised('SELECT async.finish_by_token(NULL)') LIKE '28000 %';
  -- The token is all the right that is needed, and is spent by it.
  ASSERT (SELECT async.finish_by_token(second, true, 'it rained') = task_id FROM token);
  ASSERT raised(format('SELECT async.finish_by_token(%L)', (SELECT second FROM token))) LIKE '28000 %';
END
$$;
RESET ROLE;
DO $$
BEGIN
  ASSERT (SELECT t.finish_status = 'FAILED' AND t.processing_error = 'it rained' FROM async.task t JOIN token USING (task_id));
  ASSERT NOT EXISTS (SELECT FROM async.callback_token);
  -- Of an attempt that is not the one that waits any more.
  PERFORM async.restart_task((SELECT task_id FROM token));
  UPDATE token SET first = async.make_callback_token(task_id, 7);
  ASSERT raised(format('SELECT async.finish_by_token(%L)', (SELECT first FROM token))) LIKE '55000 %not in the attempt of this token%';
END
$$;
DROP OWNED BY k_owner, k_other;
DROP ROLE k_owner, k_other;
