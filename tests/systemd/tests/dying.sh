# Callers that die between their connect and the answer (trap 20).
# shellcheck shell=bash disable=SC2154

killed() {
  local before
  # The first call opens descriptors that stay open.
  says "$granted" unit orders@1.service worker connect get:unit || return 1
  before=$(descriptors)
  rm -f "$SHARE/mark/end"
  later others steps ops connect often:primary:/share/mark/end
  later asked unit orders@2.service worker connect often:unit:/share/mark/end
  says "500 killed" unit orders@1.service worker die:500:unit || { mark end; return 1; }
  mark end
  says always ended others && says always ended asked && comes 10 at_most "$before"
}
as_users() {
  local before
  before=$(descriptors)
  says "500 killed" steps worker die:500:user && comes 10 at_most "$before"
}
same_process() { says "$1" main_pid; }

test_dying() {
  local pid
  pid=$(main_pid)
  check "500 whose user is asked for leave no descriptor" as_users
  check "500 whose unit is asked for leave none, and others are served meanwhile" killed
  check "the daemon is still the same" same_process "$pid"
}
