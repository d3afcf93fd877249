#!/usr/bin/env bash
# Is the Debian package whole? Builds it (scripts/package.sh), unpacks it over a copy of the PostgreSQL of PG_CONFIG, and runs a
# flow on a server of that copy, as an ordinary role. Nothing outside of its own directory is touched: no package is installed.
# Usage: scripts/package-test.sh [package.deb]
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PG_CONFIG
major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
die() { printf 'package-test: %s\n' "$*" >&2; exit 1; }

work=$(mktemp -d)
cluster=package-$$
tree=$work/tree
copy=$tree/usr/lib/postgresql/$major/bin/pg_config
clean_up() {
  [ ! -x "$copy" ] || PG_CONFIG=$copy scripts/scratch.sh stop "$cluster" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT
chmod 755 "$work" # the server's user reads it

deb=${1:-}
[ -n "$deb" ] || deb=$(scripts/package.sh "$work/package")

dpkg-deb --field "$deb" Depends | grep -qE "^postgresql-$major, .*libc6" || die "it does not depend on what it needs"
dpkg-deb --contents "$deb" | grep -vE ' root/root ' && die "these files are not root's"

# PostgreSQL as Debian lays it out: programs as they are (they look for the rest from where they lie), the rest as links.
mkdir -p "$(dirname "$copy")" "$tree/usr/lib/postgresql/$major/lib" "$tree/usr/share/postgresql/$major"
for program in postgres initdb pg_ctl psql pg_config; do
  cp -L "$("$PG_CONFIG" --bindir)/$program" "$(dirname "$copy")"
done
cp -rs "$(readlink -f "$("$PG_CONFIG" --pkglibdir)")/." "$tree/usr/lib/postgresql/$major/lib"
cp -rs "$(readlink -f "$("$PG_CONFIG" --sharedir)")/." "$tree/usr/share/postgresql/$major"
find "$tree" -name 'pgflow*' -delete # one that is installed there is not the package's
dpkg-deb --extract "$deb" "$tree"

# What dpkg would see: every file as it was packed.
dpkg-deb --control "$deb" "$work/control"
(cd "$tree" && md5sum --quiet --check "$work/control/md5sums") || die "files differ from those that were packed"
for file in copyright third-party-licences.gz README.md docs/operations.md; do
  [ -s "$tree/usr/share/doc/postgresql-$major-pgflow/$file" ] || die "$file is missing"
done

eval "$(PG_CONFIG=$copy scripts/scratch.sh start "$cluster" fsync=off)"
[ -n "${PGPORT:-}" ] || die "the server did not start"
sql() { "$(dirname "$copy")/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
version=$(dpkg-deb --field "$deb" Version)
[ "$(sql -c "SELECT extversion FROM pg_extension WHERE extname = 'pgflow'")-1" = "$version" ] || die "another version than $version"
sql -c "CREATE ROLE alice LOGIN IN ROLE flow_user; GRANT CREATE ON SCHEMA public TO alice"
state=$(PGUSER=alice sql <<'SQL'
CREATE TABLE done (node TEXT, step JSONB);
CREATE PROCEDURE work(_args flow.callback_arguments_t) LANGUAGE sql AS
  $$ INSERT INTO public.done VALUES (_args.node, _args.step_arguments) $$;
SELECT flow.configure_flow('packed', '{"nodes": [{"node": "a", "routine": "work", "steps": [{"s": 1}, {"s": 2}]},
  {"node": "b", "routine": "work", "dependencies": [{"parent": "a"}]}]}') \g /dev/null
SELECT flow.run_flow('packed', '{}') AS run \gset
SELECT flow.wait(:run, '60 s') \g /dev/null
SELECT string_agg(node || ' ' || status || ' ' || (SELECT count(*) FROM done d WHERE d.node = n.node), ', ' ORDER BY node)
FROM flow.v_flow_node_status n WHERE flow_id = :run;
SQL
)
[ "$state" = "a Finished 3, b Finished 1" ] || die "the flow ended as: $state"
echo "ok: $(basename "$deb") runs a flow on $("$copy" --version)"
