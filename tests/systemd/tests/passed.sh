# A connection that is passed to another process still belongs to the process that connected.
# shellcheck shell=bash disable=SC2154

hand=/share/mark/hand
# handed TEXT GIVER… -- TAKER…: checks what the taker prints; the giver lives until then
handed() {
  local should=$1 giver=() status=0
  shift
  while [[ $1 != -- ]]; do
    giver+=("$1")
    shift
  done
  shift
  rm -f "$SHARE/mark/done"
  later giver "${giver[@]}" connect "give:$hand" wait:/share/mark/done
  says "$should" "$1" "$2" "${@:3:$#-3}" "take:$hand" "${@: -1}" || status=1
  mark "done"
  says "" ended giver && return "$status"
}
# orphaned TEXT [STEP…]: the same, but the giver exits before the taker asks. The steps are what the
# giver itself asks before that.
orphaned() {
  local should=$1 before
  before=$(descriptors)
  later taker steps other "take:$hand" wait:/share/mark/go get:unit get:user
  unit orders@1.service worker connect "${@:2}" "give:$hand" pid >"$WORK/number" && mark go || return 1
  says "$should" ended taker || return 1
  comes 10 at_most "$before"
}
at_most() {
  local now
  now=$(descriptors)
  ((now <= $1)) || { echo "$now descriptors instead of $1"; return 1; }
}
# Other callers are served as before: a passed connection must not make the daemon wait.
others_served() { says "$granted" unit orders@1.service worker connect get:unit; }

test_passed() {
  check "to another unit: the connector may, so its connection may" handed "$granted" unit orders@1.service worker -- unit side.service worker get:unit
  check "to another user in another unit" handed "$granted" unit orders@1.service worker -- unit side.service other get:unit
  check "… and not what the taker itself may" handed "$denied" unit orders@1.service worker -- unit side.service other get:side
  check "to the right unit: the connector may not, so it may not" handed "$denied" unit side.service worker -- unit orders@1.service worker get:unit
  check "… from another user" handed "$denied" steps other -- unit orders@1.service worker get:unit
  check "by user too: the connector's" handed "200 token-of-user" steps worker -- steps other get:user
  check "… and not the taker's" handed "$denied" steps worker -- steps other get:crew
  check "the connector has exited before its unit was asked for" orphaned "$denied"$'\n'"200 token-of-user"
  check "others are served" others_served
}
