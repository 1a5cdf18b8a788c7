# Shared by the tests: a check prints one line; callers are users and units of the box.
# shellcheck shell=bash disable=SC2034,SC2154

passed() { tee -a "$results" <<<"ok      $test: $*"; }
failed() { tee -a "$results" <<<"FAILED  $test: $*"; }
# check NAME COMMAND…: prints the command's output only if it fails
check() {
  local name=$1 why status=0 start=${EPOCHREALTIME/./} took
  why=$("${@:2}" 2>&1) || status=$?
  took=$(((${EPOCHREALTIME/./} - start) / 1000))
  if ((status)); then
    failed "$name, $took ms: $(tail -n 4 <<<"$why" | tr '\n' ' ')"
  else
    passed "$name, $took ms"
  fi
}
summary() {
  local good bad
  good=$(grep -c '^ok ' "$results") || true
  bad=$(grep -c '^FAILED ' "$results") || true
  if ((bad)); then
    echo "---"
    grep '^FAILED ' "$results"
  fi
  echo "systemd: $good passed, $bad failed, in $SECONDS s"
  ((bad == 0 && good > 0))
}

# says TEXT COMMAND…: checks that the command prints exactly this, whatever its exit status
says() {
  local should=$1 is
  is=$("${@:2}" 2>&1) || true
  [[ $is == "$should" ]] || { echo "»$is« instead of »$should«"; return 1; }
}
# exits STATUS COMMAND…: checks the exit status; prints the command's output
exits() {
  local should=$1 is=0
  "${@:2}" || is=$?
  [[ $is == "$should" ]] || { echo "exit status $is instead of $should"; return 1; }
}
fails() { ! "$@" || { echo "it went well"; return 1; }; }
# comes SECONDS COMMAND…: checks that the command succeeds within that time; tries often
comes() {
  local end=$((${EPOCHREALTIME/./} + $1 * 1000000)) last
  until last=$("${@:2}" 2>&1); do
    if ((${EPOCHREALTIME/./} > end)); then
      echo "not within $1 s: $last"
      return 1
    fi
    sleep 0.05
  done
  [[ ! $last ]] || echo "$last"
}

# --- Callers -------------------------------------------------------------------------------------------------------------

granted="200 token-of-unit"
client=(python3 /share/client.py)
denied="404 PROFILE_NOT_FOUND"
# steps USER STEP…: runs a client as this user, in no unit
steps() { inside runuser -u "$1" -- "${client[@]}" "${@:2}"; }
# unit NAME USER [PROPERTY=…]… STEP…: runs a client in a unit of this name. A property contains no
# colon, and a step no equals sign.
unit() {
  local name=$1 user=$2 properties=()
  shift 2
  while [[ ${1:-} == *=* ]]; do
    properties+=(-p "$1")
    shift
  done
  inside systemd-run --quiet --wait --pipe --collect "--unit=$name" -p "User=$user" -p RuntimeMaxSec=60 "${properties[@]}" "${client[@]}" "$@"
}
# later NAME COMMAND…: runs in the background, output in a file; `ended NAME` waits and prints it
later() {
  "${@:2}" >"$WORK/$1.said" 2>&1 </dev/null &
  echo $! >"$WORK/$1.pid"
}
ended() {
  comes 40 gone "$(<"$WORK/$1.pid")" && cat "$WORK/$1.said"
}
gone() { ! kill -0 "$1" 2>/dev/null; }
# said NAME TEXT: checks that the background command has printed the text
said() { grep -qF -- "$2" "$WORK/$1.said"; }
marked() { [[ -e $SHARE/mark/$1 ]]; }
mark() { touch "$SHARE/mark/$1"; }

# --- The daemon ----------------------------------------------------------------------------------------------------------

main_pid() { inside systemctl show -P MainPID tokend.service; }
descriptors() { inside bash -c "ls /proc/$(main_pid)/fd | wc -l"; }
# dropin NAME LINE…: adds a drop-in to tokend.service and restarts it; without lines, removes it
dropin() {
  local file=/etc/systemd/system/tokend.service.d/$1.conf
  if (($# > 1)); then
    printf '%s\n' "${@:2}" >"$SHARE/dropin"
    inside install -D -m 644 /share/dropin "$file"
  else
    inside rm -f "$file"
  fi
  inside systemctl daemon-reload && inside systemctl restart tokend.service
}
# configure FILE: writes standard input to /etc/tokend/FILE and reloads
configure() {
  cat >"$SHARE/configure"
  inside install -m 644 /share/configure "/etc/tokend/$1" && inside tokend reload
}
# journal TEXT: checks that a field of a message of the daemon's present run has the text
journal() { inside journalctl -q -o verbose _SYSTEMD_INVOCATION_ID="$(inside systemctl show -P InvocationID tokend.service)" | grep -F -- "$1"; }
