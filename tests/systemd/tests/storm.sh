# A hundred rounds of every event that ends or replaces the daemon, under stock gRPC clients, with
# the identity provider down. It needs an installed package; package.sh installs it.
# shellcheck shell=bash disable=SC2154

storm_rounds=${STORM_ROUNDS:-100}
# Of ten rounds, most are what an administrator does; kill and hang are what nobody wants.
storm_kinds=(restart upgrade reload kill restart reload upgrade kill reload hang)

# The clients run outside the box, which has no room for them. They reach its socket through an open
# folder, which stands for its path.
stock_clients() {
  python3 -m venv "$WORK/venv" &&
    grep -E '^(grpcio|grpcio-tools|protobuf|setuptools|typing_extensions)==' "$ROOT/tests/interop/requirements.txt" >"$WORK/requirements" &&
    "$WORK/venv/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$WORK/requirements" &&
    mkdir "$WORK/stubs" &&
    "$WORK/venv/bin/python" -m grpc_tools.protoc -I "$ROOT/proto" --python_out="$WORK/stubs" --grpc_python_out="$WORK/stubs" "$ROOT"/proto/tokend/v1/*.proto
}
stock() {
  local uid gid group
  uid=$(inside id -u worker) gid=$(inside id -g worker) group=$(inside getent group tokend-clients | cut -d: -f3)
  exec 7<"/proc/$(<"$WORK/run/pid")/root/run/tokend"
  chmod -R go+rX "$WORK/venv" "$WORK/stubs"
  PYTHONPATH=$WORK/stubs PYTHONDONTWRITEBYTECODE=1 timeout 600 setpriv --reuid "$uid" --regid "$gid" --groups "$group" -- \
    "$WORK/venv/bin/python" - /proc/self/fd/7/tokend.sock 50 10 idp "$SHARE/mark/storm" "$SHARE/mark/rounds" <"$here/stock.py"
}
with_short_watchdog() {
  prepare && inside install -D -m 644 /share/short.conf /etc/systemd/system/tokend.service.d/short.conf &&
    inside systemctl daemon-reload && inside systemctl restart tokend.service
}

storm_restart() { inside systemctl restart tokend.service; }
storm_reload() { inside systemctl reload tokend.service; }
# Upgrades to the other of two versions.
storm_upgrade() {
  [[ ${version:-} == 1.1 ]] && version=1.0 || version=1.1
  dpkg_i "$version" --force-downgrade --force-confold && version_is "$version" && runs
}
storm_kill() {
  local pid
  pid=$(main_pid)
  inside kill -9 "$pid" && comes 10 another "$pid" && each_answered
}
storm_hang() { hangs && each_answered; }
# Each caller has begun a call and got its answer since now. A round that breaks connections ends
# with this check, so that no caller meets a broken one in the next round.
each_answered() { comes 20 since "${EPOCHREALTIME/./}"; }
since() { (($(<"$SHARE/mark/storm.since") > $1)); }
storm() {
  local i kind
  for ((i = 0; i < storm_rounds; i++)); do
    kind=${storm_kinds[i % ${#storm_kinds[@]}]}
    echo "$EPOCHREALTIME $kind" >>"$SHARE/mark/rounds"
    "storm_$kind" || { echo "round $i, $kind"; return 1; }
  done
}
storm_begins() {
  echo "$EPOCHREALTIME calm" >"$SHARE/mark/rounds"
  later storm stock
  comes 20 marked storm.since && each_answered
}
# all_are FIGURE NUMBER KIND…: checks a figure in rounds of these kinds
all_are() {
  local kind line
  for kind in "${@:3}"; do
    line=$(grep "^$kind " "$WORK/storm.said") || { echo "no $kind: $(<"$WORK/storm.said")"; return 1; }
    [[ $line == *" $1 $2 "* ]] || { echo "$line"; return 1; }
  done
}
many_asked() {
  local kind asked
  for kind in "${storm_kinds[@]}"; do
    asked=$(sed -n "s/^$kind asked \([0-9]*\).*/\1/p" "$WORK/storm.said")
    ((asked >= 100)) || { echo "only $asked calls in rounds of $kind"; return 1; }
  done
}

test_storm() {
  check "stock clients" stock_clients
  check "packages" packaged
  check "a machine without tokend" bare
  check "dpkg -i" dpkg_i 1.0
  check "a profile, and the identity provider goes down" set_up
  check "a watchdog that can be waited for" with_short_watchdog
  check "the credentials are in the descriptor store" comes 5 kept_in_memory
  check "50 callers and 10 watchers" storm_begins
  check "new connections all the while" crowd beside
  check "$storm_rounds rounds" storm
  check "… and the callers end" left storm
  check "… all of them" left beside
  sed 's/^/        /' "$WORK/storm.said"
  echo "        HTTP, a connection for each: $(<"$WORK/beside.said")"
  check "restart, reload, upgrade: no call failed" all_are broken 0 restart reload upgrade
  check "kill and hang: each call that broke succeeded when repeated" all_are again 0 kill hang
  check "nothing else went wrong, and no token had expired" all_are other 0 restart reload upgrade kill hang
  check "there were calls" many_asked
  check "no connection was refused" is beside refused 0
  check "… and each call that broke succeeded when repeated" is beside again 0
  check "… and nothing else went wrong" is beside other 0
  check "the identity provider was asked once in all" requests 1
  check "dpkg -P" purged
  check "the box is as it was" put_back
}
