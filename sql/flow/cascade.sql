-- The graph's heart: which nodes have ended, what that opens, skips or ends below them, and when a run is done.
-- Set-based; never called by users; see docs/architecture.md for the lock order.

-- What a decision means for the engine:
-- A tasks to queue: ids task_low..task_high of (flow_id, node_no)
-- N a node was stopped: its queued tasks are dropped, its running ones cancelled
-- E the task task_low was ended here (a step whose child run has ended): treat it as an outcome
-- R a row is locked by a client: ask again about (flow_id, node_no) when told
-- S the node has task_low open steps: its own task has finished
-- T the node's time is up at "at"
-- F the run has finished
CREATE TYPE flow.effect_t AS (
  kind TEXT, flow_id BIGINT, node_no INT, task_low BIGINT, task_high BIGINT, at TIMESTAMPTZ);
