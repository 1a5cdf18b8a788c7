# What the bash clients share: `check NAME COMMAND…` prints one line; `done_checking` ends the
# program.
# shellcheck shell=bash
client=${0##*/} client=${client%.sh}
failed=0
check() {
  local name=$1 why
  shift
  if why=$("$@" 2>&1); then
    echo "ok $client: $name"
  else
    failed=1
    echo "FAIL $client: $name: $(tail -n 3 <<<"$why" | tr '\n' ' ')"
  fi
}
done_checking() { exit "$failed"; }
# contains TEXT PART…: each part is in the text, literally
contains() {
  local text=$1 part
  shift
  for part; do
    [[ $text == *"$part"* ]] || { echo "no »$part« in: ${text:0:300}"; return 1; }
  done
}
equal() { [[ $1 == "$2" ]] || { echo "»$1« instead of »$2«"; return 1; }; }
# exits STATUS COMMAND…: the command's exit status; prints what it said
exits() {
  local should=$1 is=0
  shift
  "$@" || is=$?
  [[ $is == "$should" ]] || { echo "exit status $is instead of $should"; return 1; }
}
