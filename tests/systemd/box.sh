# The box: a systemd of its own, built once, started for one run, and always stopped afterwards.
# shellcheck shell=bash disable=SC2034,SC2154

BOX=$here/box
cache=${TOKEND_BOX_CACHE:-${XDG_CACHE_HOME:-/var/cache}/tokend-box}
# Debian 13 has systemd 257, Debian 12 (bookworm) 252.
suite=${TOKEND_BOX_SUITE:-trixie}

WORK=$(mktemp -d "${TMPDIR:-/tmp}/tokend-box.XXXXXX")
# The box sees this folder as /share.
SHARE=$WORK/share
# The control groups as seen from outside: the box's, and one for callers outside the box.
GROUPS_ROOT=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
group=sd-${WORK##*/}
outside=orders@${WORK##*.}.service
results=$WORK/results
pending=

# Waits so that a signal ends the wait: bash runs no trap while it waits for a command in the
# foreground.
interruptible() {
  local status=0
  "$@" &
  pending=$!
  wait "$pending" || status=$?
  pending=
  return "$status"
}
# shellcheck disable=SC2329  # the trap calls it
clean() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  # The process that the tests wait for is in the box, and ends with it.
  [[ ! $pending ]] || { kill "$pending" && wait "$pending"; } 2>/dev/null || true
  box_stop || status=1
  rm -rf "$WORK"
  exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

has() { command -v "$1" >/dev/null; }
step() {
  local start=$SECONDS
  echo "--- $1"
  "${@:2}"
  echo "    $((SECONDS - start)) s"
}

# Prints, for people, what is missing here; prints nothing if all is there.
missing() {
  local tool
  [[ $(id -u) == 0 ]] || { echo "not root"; return; }
  if ! has mmdebstrap && [[ ${CI:-} == true ]] && has apt-get; then
    { DEBIAN_FRONTEND=noninteractive apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends mmdebstrap; } >&2 || true
  fi
  for tool in mmdebstrap unshare nsenter setsid timeout; do
    has "$tool" || { echo "no $tool"; return; }
  done
  [[ $GROUPS_ROOT ]] || echo "no cgroup2"
}
executable() {
  if [[ ! ${TOKEND:-} ]]; then
    (cd "$ROOT" && interruptible cargo build --locked --quiet)
    TOKEND=${CARGO_TARGET_DIR:-$ROOT/target}/debug/tokend
  fi
  TOKEND=$(realpath "$TOKEND")
  [[ -x $TOKEND ]] || { echo "no executable $TOKEND"; exit 1; }
}

box_build() {
  mkdir -p "$cache"
  # Another run may be building it at the same time.
  exec 9>"$cache/lock"
  interruptible flock -w 300 9
  if [[ ! -e $cache/$suite ]]; then
    rm -rf --one-file-system "$cache/new"
    interruptible timeout -k 30 240 bash "$BOX" build "$cache/new" "$suite" 9>&-
    mv "$cache/new/root" "$cache/$suite"
    rmdir "$cache/new"
  fi
  exec 9>&-
}
box_start() {
  mkdir -p "$SHARE/mark"
  # The box writes into a tmpfs above this folder, so several runs can share it.
  ln -s "$cache/$suite" "$WORK/root"
  cp "$TOKEND" "$SHARE/tokend"
  cp -r "$ROOT/systemd" "$here"/{client.py,crowd.py,idp.py,plain.py,place.sh,tokend.toml} "$SHARE"
  # mktemp lets only root into the folder, and callers are not root.
  chmod 755 "$WORK" "$SHARE"
  chmod 1777 "$SHARE/mark"
  timeout -k 5 60 bash "$BOX" start "$WORK"
}
# `return` alone would return the status from before the trap that calls this function.
box_stop() {
  if [[ -d $GROUPS_ROOT/$outside ]]; then
    echo 1 >"$GROUPS_ROOT/$outside/cgroup.kill"
    rmdir_when_empty "$GROUPS_ROOT/$outside" || return 1
  fi
  [[ -d $WORK/run ]] || return 0
  if timeout -k 5 30 bash "$BOX" stop "$WORK"; then return 0; fi
  echo "the box did not end by itself: it is killed"
  echo 1 >"$GROUPS_ROOT/$group/cgroup.kill"
  rmdir_when_empty "$GROUPS_ROOT/$group"
}
rmdir_when_empty() {
  local i
  for ((i = 0; i < 100; i++)); do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [[ -d $1 ]] || return 0
    sleep 0.1
  done
  echo "still there: $1"
  return 1
}

# within_box SECONDS COMMAND…: runs the command as root, in no unit
within_box() { timeout -k 2 "$1" bash "$BOX" exec "$WORK" "${@:2}" </dev/null; }
inside() { within_box 30 "$@"; }
