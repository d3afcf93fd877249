-- From 0.1.0 to 0.2.0: what cannot be made again from the files of sql/load_order. Functions, views, comments, policies,
-- triggers and grants, and tables, types and indexes that are new, need nothing here. What does (the test of upgrades says
-- so, with names):
--   * a table of 0.1.0 that changes: ALTER TABLE (in CREATE TABLE, new columns come last), CREATE or DROP INDEX;
--   * a type, domain or sequence of 0.1.0 that changes: ALTER TYPE …;
--   * a function that goes, or whose arguments or result change: DROP FUNCTION name(types of 0.1.0). If a view uses it,
--     DROP VIEW first: both are made anew below;
--   * a view that loses, renames or reorders columns: DROP VIEW;
--   * rows: UPDATE, INSERT. With functions of 0.2.0: under the line.

ALTER TABLE flow.definition_node ADD COLUMN steps_to_owner NAME;
UPDATE flow.definition_node n SET steps_to_owner = c.owner FROM flow.configured c WHERE c.flow = n.steps_to_flow;
CREATE INDEX flow_open_of_role ON flow.flow (run_as) WHERE CASE WHEN processed IS NULL THEN true END;
-- The cascade opens nodes with the number of their task.
DROP FUNCTION flow.insert_node_tasks(BIGINT[], INT[]);
DROP FUNCTION flow.open_nodes(BIGINT[], INT[]);
-- One statement counts what has ended in runs and children.
DROP FUNCTION flow.count_ended(BIGINT[], INT[]);
DROP FUNCTION flow.task_form(BIGINT, INT, BOOL);
ALTER TYPE flow.task_form_t ADD ATTRIBUTE empty BOOL;

-- The objects.
-- What comes after all objects are as in 0.2.0.
