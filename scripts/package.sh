#!/usr/bin/env bash
# Builds a Debian package of pgflow for the server of PG_CONFIG (default: Debian's PostgreSQL 15, or PG_MAJOR's) and prints
# its path. The library is that of scripts/install.sh: what is built already is not built again. PROFILE=dev for a quick one.
# Nothing is installed. The same checkout gives the same package.
# Usage: scripts/package.sh [directory]     (default: target/package)
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PG_CONFIG PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
out=${1:-${CARGO_TARGET_DIR:-target}/package}
package=postgresql-$major-pgflow
maintainer='the pgflow maintainers <pgflow@pgflow.invalid>'
# When the sources were last changed: no date of today goes into the package.
changed=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
umask 022

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
root=$made/root
doc=$root/usr/share/doc/$package

# Whose code is in the library: every crate that is linked, and the texts of their licences, each once.
third_parties() {
  local crates file
  crates=$(cargo tree --quiet --locked --package pgflow --edges normal --no-default-features --features "pg$major" \
    --prefix none --no-dedupe --format '{p}|{l}|{r}' | grep -v '(/' | sed -E 's/ \(proc-macro\)//' | sort -u)
  echo "pgflow.so contains these crates from crates.io:"
  echo
  sed -E 's/^([^ ]+) v([^|]+)\|([^|]*)\|(.*)$/\1 \2: \3, \4/' <<<"$crates"
  while read -r name number; do
    for file in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-${number#v}"/{LICEN[CS]E,COPYING,NOTICE,COPYRIGHT}*; do
      [ ! -f "$file" ] || printf '%s %s %s\n' "$(sha256sum <"$file" | cut -c1-64)" "$name" "$file"
    done
  done < <(cut -d'|' -f1 <<<"$crates") | sort -k1,1 -k2,2 -u >"$made/licences"
  while read -r hash; do
    printf '\n%s\n' "$(printf '=%.0s' {1..80})"
    grep "^$hash" "$made/licences" | cut -d' ' -f2 | sort -u | paste -sd' ' | fold -s -w 100
    echo
    cat "$(grep -m 1 "^$hash" "$made/licences" | cut -d' ' -f3)"
  done < <(cut -d' ' -f1 "$made/licences" | uniq)
}

copyright() {
  echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
  echo "Upstream-Name: pgflow"
  echo "Source: https://pgxn.org/dist/pgflow/"
  echo "Comment: The library contains other people's code, under their licences: see third-party-licences.gz."
  echo
  echo "Files: *"
  sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
  echo "License: PostgreSQL"
  # The text, as a field: indented, and a dot for an empty line.
  sed -n '/^Permission/,$p' LICENSE | sed 's/^$/./; s/^/ /'
}

# The libraries that it is linked to, as packages.
shared_libraries() {
  mkdir -p "$made/debian"
  printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$package" "$package" >"$made/debian/control"
  (cd "$made" && dpkg-shlibdeps -O "root/usr/lib/postgresql/$major/lib/pgflow.so" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
}

control() {
  local needed
  needed=$(shared_libraries)
  [ -n "$needed" ] || { echo "package: dpkg-shlibdeps finds no libraries" >&2; exit 1; }
  cat <<EOF
Package: $package
Version: $version-1
Architecture: $(dpkg --print-architecture)
Maintainer: $maintainer
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: postgresql-$major, $needed
Section: database
Priority: optional
Homepage: https://pgxn.org/dist/pgflow/
Description: flows of stored procedures inside PostgreSQL $major
 pgflow runs flows inside PostgreSQL. A flow is a graph of stored procedures,
 described in JSON and started with one SQL call; background workers run it, as
 the role that started it. A procedure's effects and the record that it ran
 commit together: every step happens exactly once, through crashes and restarts.
 .
 After the installation: add pgflow to shared_preload_libraries, restart the
 server, and CREATE EXTENSION pgflow.
EOF
}

# Some build scripts look at it: with it the library would be built anew.
env -u SOURCE_DATE_EPOCH DESTDIR="$root" scripts/install.sh
export SOURCE_DATE_EPOCH=$changed
strip --strip-unneeded "$root/usr/lib/postgresql/$major/lib/pgflow.so"
chmod 644 "$root/usr/lib/postgresql/$major/lib/pgflow.so"
install -D -m 644 sql/pgflow_client.sql "$root/usr/share/postgresql/$major/contrib/pgflow/pgflow_client.sql"
install -d "$doc/docs"
install -m 644 README.md CONTRIBUTING.md LICENSE "$doc"
install -m 644 docs/*.md "$doc/docs"
install -m 644 CHANGELOG.md "$doc"
copyright >"$doc/copyright"
third_parties >"$doc/third-party-licences"
printf '%s (%s-1) unstable; urgency=medium\n\n  * Version %s: see CHANGELOG.md.\n\n -- %s  %s\n' "$package" "$version" "$version" \
  "$maintainer" "$(date -uRd "@$SOURCE_DATE_EPOCH")" >"$doc/changelog.Debian"
gzip -9n "$doc/third-party-licences" "$doc/changelog.Debian"

install -d "$root/DEBIAN"
control >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
file=$out/${package}_$version-1_$(dpkg --print-architecture).deb
dpkg-deb -Zgzip -z5 --root-owner-group --build "$root" "$made/package.deb" >/dev/null
mv "$made/package.deb" "$file"
echo "$file"
