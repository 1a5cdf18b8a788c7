#!/usr/bin/env bash
# The real executable, as a script uses it: exit statuses, standard output, and `check` against a
# real provider.
set -u
# shellcheck source=checks.sh
. "$(dirname "$0")/checks.sh"

good=$WORK/good # the profiles that work
bad=$WORK/bad   # … and those that do not, save the one whose provider lets everybody wait for minutes

json() { equal "$("$TOKEND" token basic --json | node -pe "JSON.parse(require('node:fs').readFileSync(0)).token")" "$("$TOKEND" token basic)"; }
checked_bad() {
  local said
  said=$(exits 1 "$TOKEND" check --online --config "$bad/tokend.toml") || { echo "$said"; return 1; }
  contains "$said" rejected invalid_client untrusted missing.secret "3 errors"
}

check "check --online: every profile that works" exits 0 "$TOKEND" check --online --config "$good/tokend.toml"
check "check --online: names each one that does not" checked_bad
check "token --header" equal "$("$TOKEND" token fixed --header)" "Authorization: Bearer short"
check "token --json" json
check "token of an unknown profile: 3" exits 3 "$TOKEND" token nowhere
check "token of somebody else's profile: 3" exits 3 "$TOKEND" token hidden
check "token that the provider rejects: 5" exits 5 "$TOKEND" token rejected
check "token of an untrusted provider: 4" exits 4 "$TOKEND" token untrusted
check "token of a provider that never answers: 4" exits 4 "$TOKEND" token stuck --timeout 500ms
check "wait for what cannot come in time: 4" exits 4 "$TOKEND" wait stuck --timeout 500ms
check "no daemon there: 6" exits 6 "$TOKEND" token basic --socket "$WORK/nobody.sock"
check "status: all profiles" contains "$("$TOKEND" status)" basic private-ca fresh rejected invalid_client
done_checking
