-- What tables, types and view columns mean. Functions and views have their comment beside them.

COMMENT ON SCHEMA flow IS
  'pgflow''s graph layer: flows are graphs of nodes; a run of one lets every node call its routine when its parents '
  'have ended.';
COMMENT ON DOMAIN flow.flow_priority_t IS 'A priority: -99 to 99, lower runs first.';
COMMENT ON DOMAIN flow.node_state_t IS
  'The state of a node of a run: W waits for parents; O open (its own task waits or runs); S its own task has '
  'finished, steps are open; ended: F finished, E failed, K skipped, C cancelled, T timed out, N takes no part in '
  'the run.';
COMMENT ON TYPE flow.callback_arguments_t IS 'What a callback is called with.';
COMMENT ON COLUMN flow.callback_arguments_t.flow_id IS 'The run.';
COMMENT ON COLUMN flow.callback_arguments_t.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.callback_arguments_t.flow_arguments IS 'What run_flow was given; {} for null.';
COMMENT ON COLUMN flow.callback_arguments_t.node IS 'The node.';
COMMENT ON COLUMN flow.callback_arguments_t.step_arguments IS 'The step''s arguments; {} for the node''s own task.';
COMMENT ON COLUMN flow.callback_arguments_t.task_id IS
  'The task: pass the whole to flow.finish, flow.defer, flow.progress.';

COMMENT ON TYPE flow.effect_t IS
  'Internal: what a decision of the cascade means for the engine; the kinds are explained in sql/flow/cascade.sql.';
COMMENT ON COLUMN flow.effect_t.kind IS 'A, N, E, R, T or F.';
COMMENT ON COLUMN flow.effect_t.flow_id IS 'The run.';
COMMENT ON COLUMN flow.effect_t.node_no IS 'The node, where the effect is about one.';
COMMENT ON COLUMN flow.effect_t.task_low IS 'The first task.';
COMMENT ON COLUMN flow.effect_t.task_high IS 'The last task.';
COMMENT ON COLUMN flow.effect_t.at IS 'When a node''s time is up.';

COMMENT ON SEQUENCE flow.flow_id_seq IS 'The numbers of runs.';
COMMENT ON TABLE flow.definition IS
  'Versions of flows: one row each, never updated; those that nothing needs are purged.';
COMMENT ON COLUMN flow.definition.definition_id IS 'Its number.';
COMMENT ON COLUMN flow.definition.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.definition.configuration IS
  'The configuration, as flow.configuration() gives it and configure_flow takes it.';
COMMENT ON COLUMN flow.definition.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in, schema-qualified; null: none.';
COMMENT ON COLUMN flow.definition.priority IS 'Of nodes that have none of their own; -99 to 99, lower runs first.';
COMMENT ON COLUMN flow.definition.run_as IS 'The role that runs of it run as; null: the role that calls run_flow.';
COMMENT ON COLUMN flow.definition.author IS 'The role that configured this version.';
COMMENT ON COLUMN flow.definition.created IS 'When.';

COMMENT ON TABLE flow.configured IS 'The configured flows.';
COMMENT ON COLUMN flow.configured.flow IS 'The name.';
COMMENT ON COLUMN flow.configured.definition_id IS 'The version that the next run takes.';
COMMENT ON COLUMN flow.configured.owner IS
  'The role that configured the flow first: it, its members and flow_admin may configure it again or drop it.';

COMMENT ON TABLE flow.definition_node IS 'The nodes of each version.';
COMMENT ON COLUMN flow.definition_node.definition_id IS 'The version.';
COMMENT ON COLUMN flow.definition_node.node_no IS 'The node''s number in it.';
COMMENT ON COLUMN flow.definition_node.node IS 'Its name.';
COMMENT ON COLUMN flow.definition_node.rank IS 'Length of the longest path from a node without parents.';
COMMENT ON COLUMN flow.definition_node.target IS 'Where its tasks run; null: the local database.';
COMMENT ON COLUMN flow.definition_node.routine IS 'What its own task calls, as configured; null for an empty node.';
COMMENT ON COLUMN flow.definition_node.routine_resolved IS
  'The same, schema-qualified, where it was found when configured (local targets).';
COMMENT ON COLUMN flow.definition_node.step_routine IS
  'What its steps call, as configured; null when they start a flow.';
COMMENT ON COLUMN flow.definition_node.step_routine_resolved IS
  'The same, schema-qualified, where it was found when configured.';
COMMENT ON COLUMN flow.definition_node.priority IS '-99 to 99, lower runs first.';
COMMENT ON COLUMN flow.definition_node.all_steps_must_complete IS
  'Whether a failed step stops the others and fails the node.';
COMMENT ON COLUMN flow.definition_node.empty IS 'It has no task of its own, only steps, or nothing.';
COMMENT ON COLUMN flow.definition_node.steps_to_flow IS
  'The flow that each of its steps starts; null: steps call a routine.';
COMMENT ON COLUMN flow.definition_node.synchronous IS
  'Its tasks end when their call returns, even on an asynchronous target.';
COMMENT ON COLUMN flow.definition_node.node_timeout IS
  'Limit for the node with its steps, from the start of its own task; null: none.';
COMMENT ON COLUMN flow.definition_node.step_timeout IS
  'Limit for each step, from its first start; null: the target''s.';
COMMENT ON COLUMN flow.definition_node.on_partial_fail IS
  'After a crash a task that had committed a part fails instead of running again.';
COMMENT ON COLUMN flow.definition_node.count_parents IS 'Number of its parents.';
COMMENT ON COLUMN flow.definition_node.query IS 'What the node''s own task runs instead of a routine.';
COMMENT ON COLUMN flow.definition_node.step_query IS 'What its steps run.';
COMMENT ON COLUMN flow.definition_node.query_routine IS 'A function of this database that returns the query, as configured.';
COMMENT ON COLUMN flow.definition_node.query_routine_resolved IS 'The same, schema-qualified.';
COMMENT ON COLUMN flow.definition_node.options IS
  'parameters, settings, tier, request, result, synchronous_commit, steps_per_transaction: those that are given.';
COMMENT ON COLUMN flow.definition_node.steps_to_owner IS
  'Whose flow steps_to_flow named when this version was configured; null: there was none. See flow.require_known_child.';
COMMENT ON COLUMN flow.definition_node.steps IS 'Its static steps: an array of objects; null: none.';

COMMENT ON TABLE flow.definition_edge IS 'The dependencies of each version.';
COMMENT ON COLUMN flow.definition_edge.definition_id IS 'The version.';
COMMENT ON COLUMN flow.definition_edge.parent_no IS 'The node that is waited for.';
COMMENT ON COLUMN flow.definition_edge.node_no IS 'The node that waits.';
COMMENT ON COLUMN flow.definition_edge.continue_on_failure IS 'Whether it runs although the parent failed.';

COMMENT ON TABLE flow.flow IS 'The runs. Visible to the role they run as, its members and flow_monitor.';
COMMENT ON COLUMN flow.flow.flow_id IS 'The run''s number.';
COMMENT ON COLUMN flow.flow.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.flow.definition_id IS 'The version that it keeps to its end.';
COMMENT ON COLUMN flow.flow.run_as IS 'The role that all its tasks run as.';
COMMENT ON COLUMN flow.flow.arguments IS 'What run_flow was given; {} for null.';
COMMENT ON COLUMN flow.flow.created IS 'When run_flow was called.';
COMMENT ON COLUMN flow.flow.processed IS 'When it ended; null: it is open.';
COMMENT ON COLUMN flow.flow.cancelled IS 'It was cancelled.';
COMMENT ON COLUMN flow.flow.parent_task_id IS
  'The task that started it and ends with it; null: somebody''s call of run_flow.';
COMMENT ON COLUMN flow.flow.parent_flow_id IS 'The run which that task belongs to.';
COMMENT ON COLUMN flow.flow.depth IS 'How many runs above it have started each other.';
COMMENT ON COLUMN flow.flow.only_these_nodes IS 'The nodes that take part, by name; null: all.';
COMMENT ON COLUMN flow.flow.force_priority IS 'The priority of all its tasks; null: each node''s own.';
COMMENT ON COLUMN flow.flow.count_nodes IS 'Number of its nodes.';
COMMENT ON COLUMN flow.flow.count_finished_nodes IS
  'Nodes that have ended, however (flow.v_flow_status counts only those that did not fail).';
COMMENT ON COLUMN flow.flow.count_failed_nodes IS
  'Of these: failed, timed out, cancelled, or skipped because of a failure.';
COMMENT ON COLUMN flow.flow.first_error IS 'The error that came first; null: none.';

COMMENT ON TABLE flow.flow_node IS 'The nodes of the runs. flow.v_flow_node_status tells it in words.';
COMMENT ON COLUMN flow.flow_node.flow_id IS 'The run.';
COMMENT ON COLUMN flow.flow_node.node_no IS 'The node''s number in the run''s version.';
COMMENT ON COLUMN flow.flow_node.node IS 'Its name.';
COMMENT ON COLUMN flow.flow_node.state IS 'See the domain flow.node_state_t.';
COMMENT ON COLUMN flow.flow_node.excluded IS 'It takes no part in the run (_only_these_nodes).';
COMMENT ON COLUMN flow.flow_node.parents_open IS 'Parents that have not ended.';
COMMENT ON COLUMN flow.flow_node.blocked_by IS 'A parent whose failure keeps it from running; null: none.';
COMMENT ON COLUMN flow.flow_node.task_id IS 'Its own task; null before it opens and for empty nodes.';
COMMENT ON COLUMN flow.flow_node.concurrency_pool IS
  'What the flow''s concurrency_group_routine said; null: not asked, or there is none.';
COMMENT ON COLUMN flow.flow_node.opened IS 'When its parents had ended.';
COMMENT ON COLUMN flow.flow_node.ended IS 'When it ended; null: it has not.';
COMMENT ON COLUMN flow.flow_node.times_up IS 'When node_timeout is over; known once its own task has finished.';
COMMENT ON COLUMN flow.flow_node.error IS 'Why it failed or did not run.';

COMMENT ON TABLE flow.flow_step IS 'The steps of the nodes of the runs; async.task has the rest.';
COMMENT ON COLUMN flow.flow_step.flow_id IS 'The run.';
COMMENT ON COLUMN flow.flow_step.node_no IS 'The node.';
COMMENT ON COLUMN flow.flow_step.task_id IS 'The step''s task.';
COMMENT ON COLUMN flow.flow_step.arguments_hash IS
  'SHA-256 of the arguments'' jsonb text: the same arguments are the same step.';

COMMENT ON COLUMN flow.flow_configuration.flow IS 'The name.';
COMMENT ON COLUMN flow.flow_configuration.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in; null: none.';
COMMENT ON COLUMN flow.flow_configuration.priority IS 'Of nodes that have none of their own; lower runs first.';
COMMENT ON COLUMN flow.flow_configuration.run_as IS
  'The role that its runs run as; null: the role that calls run_flow.';
COMMENT ON COLUMN flow.flow_configuration.owner IS 'The role that may configure it again.';
COMMENT ON COLUMN flow.flow_configuration.author IS 'The role that configured this version.';
COMMENT ON COLUMN flow.flow_configuration.configured IS 'When this version was stored.';
COMMENT ON COLUMN flow.flow_configuration.definition_id IS 'The version.';

COMMENT ON COLUMN flow.node.node IS 'The name.';
COMMENT ON COLUMN flow.node.target IS 'Where its tasks run.';
COMMENT ON COLUMN flow.node.routine IS 'What its own task calls; null for an empty node.';
COMMENT ON COLUMN flow.node.node_routine IS 'The same.';
COMMENT ON COLUMN flow.node.step_routine IS 'What its steps call; null when they start a flow.';
COMMENT ON COLUMN flow.node.priority IS 'Lower runs first.';
COMMENT ON COLUMN flow.node.all_steps_must_complete IS 'Whether a failed step stops the others and fails the node.';
COMMENT ON COLUMN flow.node.empty IS 'It has no task of its own.';
COMMENT ON COLUMN flow.node.steps_to_flow IS 'The flow that its steps start.';
COMMENT ON COLUMN flow.node.synchronous IS 'Its tasks end when their call returns, even on an asynchronous target.';
COMMENT ON COLUMN flow.node.node_timeout IS 'Limit for the node with its steps.';
COMMENT ON COLUMN flow.node.step_timeout IS 'Limit for each step.';
COMMENT ON COLUMN flow.node.flow IS 'The flow that it belongs to.';

COMMENT ON COLUMN flow.step.node IS 'The node.';
COMMENT ON COLUMN flow.step.arguments IS 'The step''s arguments.';
COMMENT ON COLUMN flow.step.flow IS 'The flow.';

COMMENT ON COLUMN flow.dependency_configuration.flow IS 'The flow.';
COMMENT ON COLUMN flow.dependency_configuration.parent IS 'The node that is waited for.';
COMMENT ON COLUMN flow.dependency_configuration.child IS 'The node that waits.';
COMMENT ON COLUMN flow.dependency_configuration.continue_on_failure IS
  'Whether the child runs although the parent failed.';

COMMENT ON COLUMN flow.dependency.flow_id IS 'The run.';
COMMENT ON COLUMN flow.dependency.parent IS 'The node that is waited for.';
COMMENT ON COLUMN flow.dependency.child IS 'The node that waits.';
COMMENT ON COLUMN flow.dependency.continue_on_failure IS 'Whether the child runs although the parent failed.';

COMMENT ON COLUMN flow.arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.arguments.arguments IS 'What run_flow was given.';

COMMENT ON COLUMN flow.v_flow_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_status.complete IS 'Yes: it has ended; else No.';
COMMENT ON COLUMN flow.v_flow_status.run_time IS 'From run_flow to its end, or until now, in words.';
COMMENT ON COLUMN flow.v_flow_status.count_nodes IS 'Number of its nodes.';
COMMENT ON COLUMN flow.v_flow_status.count_finished_nodes IS
  'Nodes that have ended without failing; those that take no part included.';
COMMENT ON COLUMN flow.v_flow_status.count_failed_nodes IS
  'Nodes that failed, timed out, were cancelled, or never ran because of that.';
COMMENT ON COLUMN flow.v_flow_status.arguments IS 'What run_flow was given.';
COMMENT ON COLUMN flow.v_flow_status.first_error IS 'The error that came first; null: none.';

COMMENT ON COLUMN flow.v_flow_configuration.flow IS 'The name.';
COMMENT ON COLUMN flow.v_flow_configuration.concurrency_group_routine IS
  'The function that says which pool a node''s tasks run in.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_time IS 'When its last run was started; null: never.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_success IS
  'Whether its last run ended without a failed node; null: it is open, or there is none.';
COMMENT ON COLUMN flow.v_flow_configuration.flow_concurrency_control IS
  'Always RUN: runs of a flow do not wait for each other.';
COMMENT ON COLUMN flow.v_flow_configuration.last_execution_flow_id IS 'Its last run.';
COMMENT ON COLUMN flow.v_flow_configuration.count_flows_running IS 'Its open runs.';
COMMENT ON COLUMN flow.v_flow_configuration.count_flows_pending IS 'Always 0.';
COMMENT ON COLUMN flow.v_flow_configuration.last_error_message IS 'The first error of its last run.';

COMMENT ON COLUMN flow.v_flow_node_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_node_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_node_status.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_node_status.target IS 'Where its tasks run.';
COMMENT ON COLUMN flow.v_flow_node_status.started IS
  'First start of its own task (of an empty node: when it opened); null: it has not started.';
COMMENT ON COLUMN flow.v_flow_node_status.finished IS 'When it ended, its steps included.';
COMMENT ON COLUMN flow.v_flow_node_status.status IS
  'Pending, Deferred, Running, Running Async (its call has returned, flow.finish is awaited), Running Steps; ended: '
  'Finished (also: takes no part in the run), Failed, Timed Out, Cancelled, Skipped.';
COMMENT ON COLUMN flow.v_flow_node_status.steps IS 'Number of its steps.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_pending IS 'Steps that wait.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_running IS
  'Steps that run, or whose call has returned and that await flow.finish.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_finished IS 'Steps that finished.';
COMMENT ON COLUMN flow.v_flow_node_status.steps_failed IS 'Steps that ended otherwise.';
COMMENT ON COLUMN flow.v_flow_node_status.all_steps_must_complete IS 'Whether a failed step fails the node.';
COMMENT ON COLUMN flow.v_flow_node_status.run_time IS
  'From its start to its end, or until now, in words; '''' before it starts.';
COMMENT ON COLUMN flow.v_flow_node_status.changed IS 'When something of its own last changed (not its steps).';
COMMENT ON COLUMN flow.v_flow_node_status.in_progress IS 'It has started and not ended.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_done IS
  'While its own task runs: what flow.progress said; else how many of its steps have ended.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_total IS 'Of how many; null: not said.';
COMMENT ON COLUMN flow.v_flow_node_status.progress_note IS 'What flow.progress said last, while its own task runs.';
COMMENT ON COLUMN flow.v_flow_node_status.attempt IS 'Attempts of its own task, a running one included.';
COMMENT ON COLUMN flow.v_flow_node_status.error IS 'Why it failed or did not run.';
COMMENT ON COLUMN flow.v_flow_node_status.skipped_by IS
  'Of a skipped node: the parent because of which it did not run.';
COMMENT ON COLUMN flow.v_flow_node_status.node_no IS 'Its number in the version of the flow that the run keeps.';

COMMENT ON COLUMN flow.v_flow_task_status.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_task_status.task_id IS 'The task; null: the node has none (yet).';
COMMENT ON COLUMN flow.v_flow_task_status.type IS 'Node: a node''s own task; Step: one of its steps.';
COMMENT ON COLUMN flow.v_flow_task_status.flow IS 'The flow''s name.';
COMMENT ON COLUMN flow.v_flow_task_status.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_task_status.target IS 'Where it runs.';
COMMENT ON COLUMN flow.v_flow_task_status.started IS
  'First start, as text (YYYY-MM-DD HH24:MI:SS in the session''s time zone); null: it has not started.';
COMMENT ON COLUMN flow.v_flow_task_status.complete IS 'Yes: it has ended; else No. Of a node: with its steps.';
COMMENT ON COLUMN flow.v_flow_task_status.run_time IS
  'From its start to its end, or until now, in words; '''' before it starts.';
COMMENT ON COLUMN flow.v_flow_task_status.status IS
  'As in flow.v_flow_node_status; a step is never Running Steps or Skipped.';
COMMENT ON COLUMN flow.v_flow_task_status.step_arguments IS 'The step''s arguments as text; {} for a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task_status.processing_error IS 'Why it failed or did not run.';
COMMENT ON COLUMN flow.v_flow_task_status.query IS 'The statement that it runs, in full; one can try it out by hand.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_done IS 'While it runs: what flow.progress said.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_total IS 'Of how many; null: not said.';
COMMENT ON COLUMN flow.v_flow_task_status.progress_note IS 'What flow.progress said last.';
COMMENT ON COLUMN flow.v_flow_task_status.attempt IS 'Its attempts, a running one included.';

COMMENT ON COLUMN flow.v_flow_task.flow_id IS 'The run.';
COMMENT ON COLUMN flow.v_flow_task.node IS 'The node.';
COMMENT ON COLUMN flow.v_flow_task.step_arguments IS 'The step''s arguments; {} for a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task.is_node IS 'It is a node''s own task.';
COMMENT ON COLUMN flow.v_flow_task.task_id IS 'The task.';
COMMENT ON COLUMN flow.v_flow_task.target IS 'Where it runs.';
COMMENT ON COLUMN flow.v_flow_task.priority IS 'Lower runs first.';
COMMENT ON COLUMN flow.v_flow_task.entered IS 'When it was pushed.';
COMMENT ON COLUMN flow.v_flow_task.consumed IS 'Start of its last attempt.';
COMMENT ON COLUMN flow.v_flow_task.processed IS 'When it ended; null: open.';
COMMENT ON COLUMN flow.v_flow_task.yielded IS 'When its call had returned, of an asynchronous one.';
COMMENT ON COLUMN flow.v_flow_task.finish_status IS 'How it ended; while open: YIELDED, DEFERRED or null.';
COMMENT ON COLUMN flow.v_flow_task.source IS 'Always flow.';
COMMENT ON COLUMN flow.v_flow_task.query IS 'The statement that it runs, in full.';
COMMENT ON COLUMN flow.v_flow_task.failed IS 'It ended otherwise than FINISHED.';
COMMENT ON COLUMN flow.v_flow_task.processing_error IS 'Why.';
COMMENT ON COLUMN flow.v_flow_task.asynchronous_finish IS 'It waits for flow.finish after its call has returned.';
COMMENT ON COLUMN flow.v_flow_task.times_up IS 'When a yielded one times out.';
COMMENT ON COLUMN flow.v_flow_task.task_data IS 'An object with flow_id, node and step_arguments.';
COMMENT ON COLUMN flow.v_flow_task.concurrency_pool IS
  'The pool it runs in; null: its target''s own; '''': the flow''s routine is still to be asked.';
COMMENT ON COLUMN flow.v_flow_task.manual_timeout IS 'Its own time-out, from its first start.';
COMMENT ON COLUMN flow.v_flow_task.tracked IS 'It takes a place in its pool right now.';
COMMENT ON COLUMN flow.v_flow_task.track_yielded IS 'It keeps its place in the pool while yielded.';
COMMENT ON COLUMN flow.v_flow_task.eligible_when IS 'It does not run before; infinity: its node has not opened.';
