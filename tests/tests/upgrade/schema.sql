-- Everything that the extension's schema consists of, one row a fact: (what it is of, what of it, how it is). The same rows
-- come out wherever the schema is the same; nothing in them depends on OIDs or on the order in which things were made.
SET search_path = pg_catalog;
WITH extension AS (
  SELECT e.* FROM pg_extension e WHERE e.extname = 'pgflow'
), member AS (
  SELECT d.classid, d.objid FROM pg_depend d, extension e
   WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
), space AS (
  SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('async', 'flow')
), relation AS (  -- also indexes, and the row types of tables
  SELECT c.*, format('%s %s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
                                             WHEN 'i' THEN 'index' WHEN 'c' THEN 'type' ELSE c.relkind::TEXT END,
                     c.oid::regclass) AS name
    FROM pg_class c JOIN space s ON s.oid = c.relnamespace
), routine AS (
  SELECT p.*, format('function %s', p.oid::regprocedure) AS name
    FROM pg_proc p JOIN space s ON s.oid = p.pronamespace
), kind AS (  -- no row or array types
  SELECT t.*, format('type %s', t.oid::regtype) AS name
    FROM pg_type t JOIN space s ON s.oid = t.typnamespace
   WHERE t.typtype IN ('d', 'e')
), privileged AS (
  SELECT r.name, 'rights' AS what, coalesce(r.relacl, acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner)) AS acl
    FROM relation r WHERE r.relkind IN ('r', 'v', 'S')
  UNION ALL
  SELECT r.name, format('rights on column %s', a.attname), a.attacl
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT r.name, 'rights', coalesce(r.proacl, acldefault('f', r.proowner)) FROM routine r
  UNION ALL
  SELECT k.name, 'rights', coalesce(k.typacl, acldefault('T', k.typowner)) FROM kind k
  UNION ALL
  SELECT format('schema %I', n.nspname), 'rights', coalesce(n.nspacl, acldefault('n', n.nspowner))
    FROM pg_namespace n JOIN space s ON s.oid = n.oid
  UNION ALL
  SELECT format('foreign data wrapper %I', w.fdwname), 'rights', coalesce(w.fdwacl, acldefault('F', w.fdwowner))
    FROM pg_foreign_data_wrapper w
  UNION ALL  -- what pg_dump takes for granted
  SELECT format('%s %s', i.type, i.identity), 'initial rights', p.initprivs
    FROM pg_init_privs p JOIN member m ON m.classid = p.classoid AND m.objid = p.objoid,
         pg_identify_object(p.classoid, p.objoid, p.objsubid) i
)
SELECT 'extension' AS name, 'version' AS what, e.extversion AS how FROM extension e
UNION ALL
SELECT 'extension', 'attributes', format('%s %s %s', e.extnamespace::regnamespace, e.extowner::regrole, e.extrelocatable)
  FROM extension e
UNION ALL
SELECT format('%s %s', i.type, i.identity), 'is a member of the extension', 'yes'
  FROM member m, pg_identify_object(m.classid, m.objid, 0) i
UNION ALL
SELECT c.oid::regclass::TEXT, 'is dumped where', format('[%s]', e.extcondition[x.n])
  FROM extension e, unnest(e.extconfig) WITH ORDINALITY x (relation, n) JOIN pg_class c ON c.oid = x.relation
UNION ALL
SELECT r.name, 'attributes', format('owner %s, persistence %s, row security %s %s, options %s, identity %s, method %s',
         r.relowner::regrole, r.relpersistence, r.relrowsecurity, r.relforcerowsecurity, r.reloptions, r.relreplident,
         (SELECT a.amname FROM pg_am a WHERE a.oid = r.relam))
  FROM relation r
UNION ALL
SELECT r.name, format('column %s', a.attname),
       format('number %s, %s, not null %s, default %s, identity %s, generated %s, collation %s, storage %s, statistics %s, options %s',
              row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod), a.attnotnull,
              pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, nullif(a.attcollation, 0)::regcollation,
              a.attstorage, a.attstattarget,
              -- The server's own count of the column's definitions (since 15.20).
              (SELECT array_agg(o ORDER BY o) FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg_attver=%'))
  FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE r.relkind <> 'i'
UNION ALL
SELECT coalesce(r.name, k.name), format('constraint %s', c.conname), format('%s, validated %s', pg_get_constraintdef(c.oid), c.convalidated)
  FROM pg_constraint c LEFT JOIN relation r ON r.oid = c.conrelid LEFT JOIN kind k ON k.oid = c.contypid
 WHERE r.oid IS NOT NULL OR k.oid IS NOT NULL
UNION ALL
SELECT t.name, format('index %s', r.relname), format('%s, clustered %s, valid %s', pg_get_indexdef(r.oid), i.indisclustered, i.indisvalid)
  FROM relation r JOIN pg_index i ON i.indexrelid = r.oid JOIN relation t ON t.oid = i.indrelid
UNION ALL
SELECT r.name, 'sequence', format('%s from %s by %s, %s to %s, cache %s, cycle %s', q.seqtypid::regtype, q.seqstart,
         q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle)
  FROM relation r JOIN pg_sequence q ON q.seqrelid = r.oid
UNION ALL
SELECT r.name, 'query', pg_get_viewdef(r.oid) FROM relation r WHERE r.relkind = 'v'
UNION ALL
SELECT r.name, format('trigger %s', t.tgname), format('%s, enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
  FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT r.name, format('policy %s', p.polname), format('for %s to %s, permissive %s, using %s, with check %s', p.polcmd,
         (SELECT array_agg(x::regrole ORDER BY x::regrole::TEXT) FROM unnest(p.polroles) x), p.polpermissive,
         pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
  FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT r.name, format('rule %s', w.rulename), w.ev_enabled::TEXT
  FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid
UNION ALL
SELECT r.name, 'definition', pg_get_functiondef(r.oid) FROM routine r WHERE r.prokind <> 'a'
UNION ALL
SELECT r.name, 'owner', r.proowner::regrole::TEXT FROM routine r
UNION ALL
SELECT k.name, 'attributes', format('owner %s, of %s, not null %s, default %s, labels %s', k.typowner::regrole,
         nullif(k.typbasetype, 0)::regtype, k.typnotnull, k.typdefault,
         (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = k.oid))
  FROM kind k
UNION ALL
SELECT p.name, p.what, (SELECT array_agg(DISTINCT format('%s: %s%s', CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::TEXT END,
                                 x.privilege_type, CASE WHEN x.is_grantable THEN ' with grant option' END))
                          FROM aclexplode(p.acl) x)::TEXT
  FROM privileged p
UNION ALL
SELECT format('%s %s', i.type, i.identity), 'comment', d.description
  FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
 WHERE i.identity ~ '(^| on |\m)"?(async|flow)"?\.' OR i.identity IN ('async', 'flow', 'pgflow')
 ORDER BY 1, 2, 3;
