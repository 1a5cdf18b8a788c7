# Changed access holds from the next call of an open connection, and for open streams.
# shellcheck shell=bash disable=SC2154

# Prints the file with another rule for one profile.
rule() { sed "/^\[profiles\.$1\]$/,/^access/ s/^access = .*/access = [$2]/" "$here/tokend.toml" | configure tokend.toml; }

# One connection asks before and after the change.
open_connection() {
  rm -f "$SHARE"/mark/*
  later caller "$1" "${@:5}" connect "get:$2" mark:/share/mark/asked wait:/share/mark/go "get:$2" mark:/share/mark/again wait:/share/mark/back "get:$2"
  comes 10 marked asked && rule "$2" "$3" && mark go && comes 10 marked again && rule "$2" "$4" && mark back &&
    says "200 token-of-$2"$'\n'"$denied"$'\n'"200 token-of-$2" ended caller
}
watch() { inside systemd-run --quiet --wait --pipe --collect "--unit=$1" -p "User=$2" -p RuntimeMaxSec=60 -E TOKEND_SOCKET=/run/tokend/tokend.sock tokend watch "$3"; }
# A watcher that is no longer permitted is told so within two seconds of the reload; no other is.
stream() {
  local profile=$1 taken=$2 unit=$3 start took status=0
  later watching watch "$unit" worker "$profile"
  later staying watch watcher-2.service ops primary
  comes 10 said watching "token-of-$profile" && comes 10 said staying token-of-primary || return 1
  rule "$profile" "$taken" || return 1
  start=${EPOCHREALTIME/./}
  comes 10 gone "$(<"$WORK/watching.pid")" || return 1
  took=$(((${EPOCHREALTIME/./} - start) / 1000))
  ((took < 2000)) || { echo "only after $took ms"; status=1; }
  said watching "not permitted" || said watching "NOT_FOUND" || said watching "no profile" || { cat "$WORK/watching.said"; status=1; }
  fails gone "$(<"$WORK/staying.pid")" || status=1
  inside systemctl stop watcher-2.service
  ended staying >/dev/null
  return "$status"
}
# The user keeps its name and gets another number.
renumbered() {
  rm -f "$SHARE"/mark/*
  # The user is given by number, since soon no user will have that number.
  later caller inside setpriv --reuid 3001 --regid mover --groups tokend-clients "${client[@]}" connect get:moving mark:/share/mark/asked wait:/share/mark/go get:moving
  comes 10 marked asked || return 1
  # usermod would refuse while the user has a process.
  inside sed -i 's/^mover:x:3001:/mover:x:3002:/' /etc/passwd && inside tokend reload || return 1
  says "200 token-of-moving" steps mover connect get:moving || return 1
  mark go
  says "200 token-of-moving"$'\n'"$denied" ended caller &&
    says "$denied" inside setpriv --reuid 3001 --regid mover --groups tokend-clients "${client[@]}" connect get:moving
}

test_changed() {
  check "by user, on an open connection" open_connection steps user '{ user = "ops" }' '{ user = "worker" }' worker
  check "by group, on an open connection" open_connection steps crew '{ group = "ops" }' '{ group = "crew" }' other
  check "by unit, on an open connection" open_connection unit unit '{ unit = "side.service" }' '{ unit = "orders@*.service" }' orders@1.service worker
  check "by user, an open stream ends within 2 s" stream user '{ user = "ops" }' watcher-1.service
  check "by unit, an open stream ends within 2 s" stream unit '{ user = "worker", unit = "side.service" }' orders@1.service
  check "a name with another number, after a reload" renumbered
}
