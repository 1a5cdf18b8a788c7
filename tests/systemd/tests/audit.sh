# The audit record, in the real journal and in a file.
# shellcheck shell=bash disable=SC2154

# entry FIELD=VALUE…: prints the last entry of the journal that has all of these; fails if none has
entry() { inside journalctl -q -o json "$@" | tail -n 1 | grep .; }
in_journal() { comes 12 entry SYSLOG_IDENTIFIER=tokend "$@"; }
field() { inside env PYTHONPATH=/share python3 -c 'import sys; from plain import loads; print(loads(sys.argv[1]).get(sys.argv[2]))' "$1" "$2"; }
granted_in_journal() {
  local found uid
  uid=$(inside id -u worker)
  found=$(in_journal TOKEND_DECISION=grant TOKEND_PROFILE=unit TOKEND_UNIT=orders@7.service "TOKEND_UID=$uid") || { echo "$found"; return 1; }
  says tokend field "$found" SYSLOG_IDENTIFIER && fails says None field "$found" TOKEND_FINGERPRINT && fails grep -F token-of <<<"$found"
}
denied_in_journal() {
  in_journal TOKEND_DECISION=deny TOKEND_PROFILE=unit TOKEND_UNIT=side.service "TOKEND_UID=$(inside id -u worker)"
}
to_file() {
  { cat "$here/tokend.toml" && printf '\n[audit]\nsink = "file"\npath = "/var/log/tokend/audit.jsonl"\n'; } >"$SHARE/with-audit"
  inside install -m 644 /share/with-audit /etc/tokend/tokend.toml && inside systemctl restart tokend.service
}
file=/var/log/tokend/audit.jsonl
# find_record FILE KEY=VALUE…: prints a line of the file that has all of these
find_record() {
  # shellcheck disable=SC2016
  inside env PYTHONPATH=/share python3 -c '
import sys
from plain import loads
wanted = dict(pair.split("=", 1) for pair in sys.argv[2:])
for line in open(sys.argv[1]):
    record = loads(line)
    if all(str(record.get(key)) == value for key, value in wanted.items()):
        print(line, end="")
        sys.exit()
sys.exit("no such record")' "$@"
}
granted_in_file() {
  local found key
  found=$(comes 12 find_record "$file" decision=grant profile=unit unit=orders@8.service "uid=$(inside id -u worker)" "gid=$(inside id -g worker)") || { echo "$found"; return 1; }
  for key in time seq pid rule fingerprint; do
    fails says None field "$found" "$key" || return 1
  done
  fails grep -F token-of <<<"$found"
}
denied_in_file() { comes 12 find_record "$file" decision=deny profile=unit unit=side.service "uid=$(inside id -u worker)"; }
asked_of_both() { says "$granted" unit "$1" worker connect get:unit && says "$denied" unit side.service worker connect get:unit; }
holds() { inside sh -c "ls -l /proc/$(main_pid)/fd" | grep -F " $1"; }
# Reopens the file as logrotate does.
reopened() {
  inside mv "$file" "$file.1" && holds "$file.1" && inside kill -HUP "$(main_pid)" && comes 5 fails holds "$file.1" || return 1
  says "$granted" unit orders@9.service worker connect get:unit || return 1
  comes 12 inside test -e "$file" &&
    comes 12 find_record "$file" decision=grant unit=orders@9.service &&
    find_record "$file.1" decision=grant unit=orders@8.service &&
    fails find_record "$file.1" unit=orders@9.service
}

# The search works: it finds the records of the same credential.
nowhere_in_journal() { inside journalctl -q -o export --no-pager | grep -aF TOKEND_PROFILE=unit && fails grep -aF token-of < <(inside journalctl -q -o export --no-pager); }

test_audit() {
  check "a grant and a denial" asked_of_both orders@7.service
  check "the grant is in the journal, with its fields" granted_in_journal
  check "the denial is in the journal" denied_in_journal
  check "no token is in any field of the journal" nowhere_in_journal
  check "sink = file" to_file
  check "a grant and a denial again" asked_of_both orders@8.service
  check "the grant is in the file, with its fields" granted_in_file
  check "the denial is in the file" denied_in_file
  check "the file is the daemon's alone" says "600 tokend" inside stat -c '%a %U' "$file"
  check "moved away, it is made again on SIGHUP" reopened
}
