# Rules by user and by group, over HTTP and with `tokend token`.
# shellcheck shell=bash disable=SC2154

profiles=(daemon user primary crew both mixed either nothing)
# has_only USER PROFILE…: the user may have these, and all others look as if they did not exist
has_only() {
  local user=$1 profile asked=() should=()
  shift
  for profile in "${profiles[@]}" unknown; do
    asked+=("get:$profile")
    if [[ " $* " != *" $profile "* ]]; then should+=("$denied")
    elif [[ $profile == nothing ]]; then should+=("200 ")
    else should+=("200 token-of-$profile"); fi
  done
  says "$(printf '%s\n' "${should[@]}")" steps "$user" connect "${asked[@]}"
}
token_as() { inside runuser -u "$1" -- env TOKEND_SOCKET=/run/tokend/tokend.sock tokend token "$2"; }
unknown_as_denied() {
  local denied unknown
  denied=$(token_as worker crew 2>&1) || true
  unknown=$(token_as worker unknown 2>&1) || true
  says "$denied" echo "${unknown//unknown/crew}"
}

test_users() {
  check "worker: by user" has_only worker user either nothing
  check "ops: by primary group" has_only ops primary
  check "other: by supplementary group" has_only other crew both either
  check "mover: none of these" has_only mover
  check "root: what has no rules" has_only root daemon
  check "tokend: what has no rules" has_only tokend daemon
  check "a group that a process has given up does not count" says "$denied" \
    inside setpriv --reuid other --regid tokend-clients --clear-groups "${client[@]}" connect get:crew
  check "tokend token: worker" says token-of-user token_as worker user
  check "tokend token: ops" says token-of-primary token_as ops primary
  check "tokend token: other" says token-of-crew token_as other crew
  check "tokend token: denied is status 3" exits 3 token_as worker crew
  check "tokend token: denied and unknown say the same" unknown_as_denied
}
