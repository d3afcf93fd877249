# Makes the upgrade script from one version to the next, so that only what is in tables is written by hand:
#   awk -v target=B -f scripts/upgrade.awk sql/pgflow--A.sql <the made script of version B> sql/upgrade/A--B.sql
# prints what brings a database of version A to version B. In this order:
#   1. the check that the library in use is not older (sql/async/version.sql);
#   2. what sql/upgrade/A--B.sql says above its line "-- The objects.";
#   3. the statements of version B: functions, views and triggers with OR REPLACE, policies anew, comments and grants again,
#      and what version A has not got (tables, types, indexes …) as it is. What both have is not made again: if it differs,
#      the file of step 2 says how it changes, and tests/tests/upgrade fails until it does;
#   4. what that file says below the line.

BEGIN { part = 0 }
FNR == 1 { if (statement != "") fail("the file before ends in mid-statement: " statement); part++; below = 0 }
part == 3 && /^-- The objects\.$/ { below = 1; next }
{ scan($0) }
END {
  if (problem) exit 1
  if (statement != "") fail("ends in mid-statement: " statement)
  print "-- pgflow: what brings a database to version " target ". Made by scripts/upgrade.awk; do not edit."
  print "\\echo Use \"ALTER EXTENSION pgflow UPDATE\" to load this file. \\quit"
  for (i = 1; i <= count; i++) if (file[i] == "async/version.sql") emit(i)
  for (i = 1; i <= above_count; i++) print "\n" above[i]
  for (i = 1; i <= count; i++) if (file[i] != "async/version.sql") emit(i)
  for (i = 1; i <= below_count; i++) print "\n" after[i]
}

function fail(message) { print "scripts/upgrade.awk: " FILENAME ": " message > "/dev/stderr"; problem = 1; exit 1 }

# Takes one line; calls take() with every statement that ends in it. Comments outside of statements are left out, but for
# those that name the file a statement comes from.
function scan(line,    rest, token) {
  if (quote == "" && statement == "" && line ~ /^-- [a-z_]+(\/[a-z_]+)?\.sql$/) { origin = substr(line, 4); return }
  if (quote == "" && statement == "" && line ~ /^\\echo /) return
  rest = line
  while (rest != "") {
    if (quote != "") {  # inside: only what closes it counts
      token = index(rest, quote)
      if (!token) break
      token += length(quote) - 1
      statement = statement substr(rest, 1, token)
      rest = substr(rest, token + 1)
      quote = ""
    } else if (match(rest, /--|\$[A-Za-z_]*\$|'|"|;/)) {
      token = substr(rest, RSTART, RLENGTH)
      if (token == "--") { rest = substr(rest, 1, RSTART - 1); break }
      statement = statement substr(rest, 1, RSTART + RLENGTH - 1)
      rest = substr(rest, RSTART + RLENGTH)
      if (token == ";") { take(); statement = "" } else quote = token
    } else break
  }
  if (quote == "") sub(/[ \t]+$/, "", rest)
  if (statement != "" || rest ~ /[^ \t]/) statement = statement rest "\n"
}

function take() {
  sub(/^[ \t\n]+/, "", statement)
  if (statement ~ /BEGIN ATOMIC/) fail("BEGIN ATOMIC is not understood")
  if (part == 1) remember(statement)
  else if (part == 2) { text[++count] = statement; file[count] = origin }
  else {
    by_hand[flat(statement)] = 1
    if (below) after[++below_count] = statement; else above[++above_count] = statement
  }
}

function flat(text) { gsub(/[ \t\n]+/, " ", text); return text }

# "KIND name" of what a statement creates and what cannot be created twice; "" for others.
function thing(text,    line, kind) {
  line = flat(text)
  if (line !~ /^CREATE (TABLE|TYPE|DOMAIN|SEQUENCE|SCHEMA|UNIQUE INDEX|INDEX|FOREIGN DATA WRAPPER|CAST|OPERATOR) /) return ""
  sub(/^CREATE (UNIQUE )?/, "", line)
  sub(/ IF NOT EXISTS/, "", line)
  kind = line
  sub(/ .*/, "", kind)
  if (kind == "CAST" || kind == "OPERATOR" || line ~ /^INDEX ON /) return line
  sub(/^FOREIGN DATA WRAPPER/, "WRAPPER", line)
  match(line, /^[A-Z]+ [^ (;]+/)
  return substr(line, 1, RLENGTH)
}

function remember(text) {
  known[flat(text)] = 1
  if (thing(text) != "") known[thing(text)] = 1
}

function emit(i,    statement, line, words) {
  statement = text[i]
  line = flat(statement)
  if (line ~ /^CREATE (OR REPLACE )?(FUNCTION|PROCEDURE|AGGREGATE|VIEW|TRIGGER) /) {
    if (line !~ /^CREATE OR REPLACE/) sub(/^CREATE/, "CREATE OR REPLACE", statement)
  } else if (line ~ /^CREATE POLICY /) {
    split(line, words, " ")
    print "\nDROP POLICY IF EXISTS " words[3] " ON " words[5] ";"
  } else if (thing(statement) != "") {
    if ((thing(statement) in known) || (line in by_hand)) return
  } else if (line ~ /^INSERT INTO /) {  # first rows: of new tables only
    split(line, words, "[ (;]")
    if (("TABLE " words[3]) in known) return
  } else if (line ~ /^ALTER TABLE [a-z_.]+ ENABLE ROW LEVEL SECURITY;/) {
  } else if (line ~ /^ALTER /) {
    if ((line in known) || (line in by_hand)) return
  } else if (line !~ /^(COMMENT|GRANT|REVOKE|DO|SELECT) /) {
    FILENAME = file[i]
    fail("no rule for: " substr(line, 1, 100))
  }
  print "\n" statement
}
