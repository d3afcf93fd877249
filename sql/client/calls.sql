-- The procedures that callbacks call. On a client they COMMIT first (unless told not to), so that the server, which reacts at
-- once, finds what the callback wrote. Those that do are without a SET clause, and with the caller's rights: every name is
-- qualified.

-- COMMIT has two refusals, both invalid_transaction_termination. In a block with EXCEPTION, where nothing is ever committed,
-- it says which one it would be: this place allows no COMMIT at all, or only the block forbids it. Their texts are
-- translated; a function, where no COMMIT is ever allowed, tells what the first reads like.
CREATE OR REPLACE FUNCTION async.require_commit(_refusal TEXT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  BEGIN
    COMMIT;
  EXCEPTION WHEN invalid_transaction_termination THEN
    IF _refusal <> SQLERRM THEN
      RETURN;
    END IF;
  END;
  RAISE invalid_transaction_termination USING
    MESSAGE = 'the orchestrating server can be told only after a COMMIT, and none is possible here',
    DETAIL = 'The call comes from a function, a transaction block, a procedure with a SET clause, or a block with EXCEPTION.',
    HINT = 'CALL it from a procedure or DO block outside of those. Or pass _flush_transaction_when_client := false: then the '
      'server is told at once, may react before your transaction commits, and is not untold if it rolls back.';
END
$$;
COMMENT ON FUNCTION async.require_commit(TEXT) IS
  'Internal: raises with a hint if this refusal of a COMMIT is one that says that none is possible.';

CREATE OR REPLACE PROCEDURE flow.push_steps(
  _flow_id BIGINT, _node TEXT, _arguments JSONB[], _flush_transaction_when_client BOOL DEFAULT TRUE)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.push_steps_now(_flow_id, _node, _arguments);
END
$$;
COMMENT ON PROCEDURE flow.push_steps(BIGINT, TEXT, JSONB[], BOOL) IS
  'Adds steps to a node of a run: an array of JSON objects, the arguments of each; they run when the transaction '
  'has committed and the node''s own task has. Steps that the node has already (the same arguments) are left out. '
  '_flush_transaction_when_client: where this database is a client (async.server), commits before the server is told; '
  'false: the server is told at once and may start steps before this transaction commits, or although it rolls back. '
  'Raises invalid_parameter_value for a step that is {}, null or no object (with its place in the array), '
  'undefined_object for an unknown run or node, object_not_in_prerequisite_state when the node has ended or takes no '
  'part in the run; on a client invalid_transaction_termination where no COMMIT is possible, and class 08 when the '
  'server cannot be reached.';

CREATE OR REPLACE PROCEDURE flow.finish(
  _args flow.callback_arguments_t, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL,
  _flush_transaction_when_client BOOL DEFAULT true)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.finish_now(_args, _failed, _error_message);
END
$$;
COMMENT ON PROCEDURE flow.finish(flow.callback_arguments_t, BOOL, TEXT, BOOL) IS
  'Ends the task of a callback: FINISHED, or FAILED with _error_message. _args: the arguments that the callback was '
  'called with. Inside the callback the outcome holds if its transaction commits, and for one that runs on another server '
  'if the call there returns without an error; elsewhere (asynchronous targets) it is written at once. A task that has '
  'ended: a WARNING. _flush_transaction_when_client: as for flow.push_steps. '
  'Raises undefined_object, invalid_parameter_value (not the task''s arguments), insufficient_privilege.';

CREATE OR REPLACE PROCEDURE flow.defer(_args flow.callback_arguments_t, _duration INTERVAL)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM flow.defer_now(_args, _duration);
END
$$;
COMMENT ON PROCEDURE flow.defer(flow.callback_arguments_t, INTERVAL) IS
  'Puts the task of a callback back to wait for at least _duration; then it runs again with the same arguments. It waits '
  'from the moment its call has returned. Time-outs go on from its first start. Commits nothing. Errors as flow.finish.';
