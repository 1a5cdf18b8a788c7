# Shared by the suites that start real processes: a temporary folder that is always removed,
# processes in the background, packages, and the count at the end. Before it reads this file, a
# suite sets `suite` (its name) and `logs` (the logs whose end is shown after a failure).
# shellcheck shell=bash disable=SC2034,SC2154

interop=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$interop/../.." && pwd)
PROTO=$ROOT/proto
cache=${TOKEND_INTEROP_CACHE:-$ROOT/target/interop}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# The path of a socket has at most 107 bytes.
WORK=$(mktemp -d "${TMPDIR:-/tmp}/tokend-$suite.XXXXXX")
results=$WORK/results
: >"$results"
declare -A children=()
summed=

# A suite redefines this if it has to end a process in its own way.
before_cleaning() { :; }
# shellcheck disable=SC2329  # the trap calls it
clean() {
  local status=$? name
  trap - EXIT
  # A signal may have come while the output was redirected.
  exec >&8 2>&9
  if ((status)) && [[ ! $summed ]]; then
    say "FAIL run: ended before its time"
    summary || true
  fi
  before_cleaning
  for name in "${!children[@]}"; do
    end "$name" || true
  done
  if ((status)); then
    for name in "${logs[@]}"; do
      [[ ! -s $WORK/$name.log ]] || { echo "--- the end of $name.log"; grep -vE ' (DEBUG|TRACE) ' "$WORK/$name.log" | tail -n 20; }
    done
  fi
  if [[ ${KEEP:-} ]]; then echo "kept: $WORK"; else rm -rf "$WORK"; fi
  exit "$status"
}
exec 8>&1 9>&2
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { tee -a "$results" <<<"$*"; }
die() {
  say "FAIL run: $*"
  summary || exit 1
}
skip() { say "SKIP $*"; }
has() { command -v "$1" >/dev/null; }
step() {
  local start=$SECONDS
  echo "--- $1"
  "${@:2}"
  echo "    $((SECONDS - start)) s"
}

# start NAME COMMAND…: runs the command in the background, with a log of its own
start() {
  "${@:2}" >"$WORK/$1.log" 2>&1 &
  children[$1]=$!
}
# end NAME: sends SIGTERM, and SIGKILL after ten seconds; returns the exit status
end() {
  local pid=${children[$1]} i status=0
  unset "children[$1]"
  kill "$pid" 2>/dev/null || true
  for ((i = 0; i < 100; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" || status=$?
  return "$status"
}
# until_there FILE NAME: waits for a file that the background process NAME makes
until_there() {
  local i
  for ((i = 0; i < 300; i++)); do
    [[ ! -e $1 ]] || return 0
    kill -0 "${children[$2]}" 2>/dev/null || die "$2 has ended"
    sleep 0.1
  done
  die "$2 has not made ${1##*/} within 30 s"
}

# free_ports COUNT: prints free ports of the loopback, on one line
free_ports() {
  node -e '
    const servers = Array.from({ length: Number(process.argv[1]) }, () => require("node:net").createServer());
    Promise.all(servers.map((one) => new Promise((done) => one.listen(0, "127.0.0.1", done)))).then(() => {
      console.log(servers.map((one) => one.address().port).join(" "));
      servers.forEach((one) => one.close());
    });' "$1"
}

# --- Tools and packages ------------------------------------------------------------------------------------------------

node_is_there() { has npm && has node && node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'; }
python_is_there() { has python3 && python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
# fresh FOLDER FILE…: succeeds if FOLDER was made from these very files; else it empties the folder
fresh() {
  local folder=$1 sum
  sum=$(cat "${@:2}" | sha256sum)
  if [[ -e $folder/made && $(<"$folder/made") == "$sum" ]]; then return 0; fi
  rm -rf "$folder"
  mkdir -p "$folder"
  echo "$sum" >"$folder/made.new"
  return 1
}
made() { mv "$1/made.new" "$1/made"; }

node_packages() {
  fresh "$cache/node" "$interop/package-lock.json" && return
  cp "$interop"/package{,-lock}.json "$cache/node/"
  (cd "$cache/node" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  made "$cache/node"
}
python_packages() {
  fresh "$cache/python" "$interop/requirements.txt" <(python3 -V) && return
  timeout 60 python3 -m venv "$cache/python/venv"
  timeout 300 "$cache/python/venv/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$interop/requirements.txt"
  made "$cache/python"
}
executable() {
  if [[ ! ${TOKEND:-} ]]; then
    (cd "$ROOT" && cargo build --locked --quiet)
    TOKEND=${CARGO_TARGET_DIR:-$ROOT/target}/debug/tokend
  fi
  TOKEND=$(realpath "$TOKEND")
  [[ -x $TOKEND ]] || die "no executable $TOKEND"
}

# --- The clients and the count -----------------------------------------------------------------------------------------

# client NAME COMMAND…: its lines are results; a failure without a line that says why is one, too
client() {
  local status=0 before=$SECONDS said=$WORK/said
  echo "--- $1"
  timeout -k 5 180 "${@:2}" >"$said" 2>>"$WORK/$1.log" </dev/null || status=$?
  tee -a "$results" <"$said"
  if ! grep -qE '^(ok|FAIL) ' "$said" || { ((status)) && ! grep -q '^FAIL ' "$said"; }; then
    say "FAIL $1: ended with $status: $(tail -n 3 "$WORK/$1.log" | tr '\n' ' ')"
  fi
  echo "    $((SECONDS - before)) s"
}
# check NAME COMMAND…: prints one line, with the time that the command took
check() {
  local name=$1 why status=0 start=${EPOCHREALTIME/./} tenths
  shift
  # The command does not run in a subshell: processes that it starts must belong to this shell.
  "$@" >"$WORK/said" 2>&1 || status=$?
  why=$(<"$WORK/said")
  tenths=$(((${EPOCHREALTIME/./} - start) / 100000))
  if ((status == 0)); then
    say "ok $suite: $name ($((tenths / 10)).$((tenths % 10)) s)${why:+: $(tail -n 1 <<<"$why")}"
  else
    say "FAIL $suite: $name: $(tail -n 4 <<<"$why" | tr '\n' ' ')"
  fi
}
field() { node -pe "JSON.parse(require('node:fs').readFileSync(0))$1"; }
summary() {
  local passed failed skipped
  summed=yes
  passed=$(grep -c '^ok ' "$results") || true
  failed=$(grep -c '^FAIL ' "$results") || true
  skipped=$(grep -c '^SKIP ' "$results") || true
  if ((failed + skipped)); then
    echo "---"
    grep -E '^(FAIL|SKIP) ' "$results" || true
  fi
  echo "$suite: $passed passed, $failed failed, $skipped skipped in $SECONDS s"
  if [[ ${CI:-} == true ]] && grep '^SKIP ' "$results" | grep -qv '(optional)'; then
    echo "with CI=true a missing tool is a failure"
    return 1
  fi
  ((failed == 0 && passed + skipped > 0))
}

