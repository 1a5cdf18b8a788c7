# Restart, reload, crash and hang under callers, with the identity provider down all the while.
# shellcheck shell=bash disable=SC2154

rounds=${RESTART_ROUNDS:-25}

# The service manager holds the socket, and a profile has a token for an hour.
with_socket() {
  inside systemctl stop tokend.service || true
  inside install -m 644 /share/systemd/tokend.socket /etc/systemd/system/ &&
    inside systemd-run --quiet --unit=idp.service python3 /share/idp.py 8500 /run/idp.count &&
    inside install -D -m 644 /share/short.conf /etc/systemd/system/tokend.service.d/short.conf &&
    inside install -m 644 /share/restart.toml /etc/tokend/tokend.toml &&
    inside systemctl daemon-reload &&
    inside systemctl start tokend.socket tokend.service &&
    comes 10 inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend wait idp --timeout 0 &&
    inside systemctl stop idp.service
}
without_socket() {
  inside systemctl stop tokend.service tokend.socket
  inside rm -rf /etc/systemd/system/tokend.socket /etc/systemd/system/tokend.service.d
  inside systemctl daemon-reload
}
prepare() {
  cat >"$SHARE/restart.toml" <<'TOML'
[profiles.idp]
method = "oauth2"
token_url = "http://127.0.0.1:8500/token"
client_id = "it"
client_secret = { file = "secrets/user" }
access = [{ user = "worker" }, { user = "root" }]
TOML
  # The watchdog is short enough for a test, and the pause between restarts does not grow.
  printf '[Service]\nWatchdogSec=2s\nRestartSteps=0\nRestartMaxDelaySec=infinity\n' >"$SHARE/short.conf"
}
requests() { says "$1" inside cat /run/idp.count; }
figure() { sed -n "s/.*\\b$2 \\([0-9]*\\).*/\\1/p" "$WORK/$1.said"; }
is() { [[ $(figure "$1" "$2") == "$3" ]] || { echo "$2 is $(figure "$1" "$2") instead of $3: $(<"$WORK/$1.said")"; return 1; }; }
at_least() { (($(figure "$1" "$2") >= $3)) || { echo "$2 is only $(figure "$1" "$2")"; return 1; }; }

orderly() {
  local i
  for ((i = 0; i < rounds; i++)); do
    inside systemctl restart tokend.service || return 1
    inside systemctl reload tokend.service || return 1
  done
}
killed_again() {
  local i pid
  for ((i = 0; i < rounds; i++)); do
    pid=$(main_pid)
    inside kill -9 "$pid"
    comes 10 another "$pid" || return 1
  done
}
another() {
  local now
  now=$(main_pid)
  [[ $now != 0 && $now != "$1" ]] && is_active_now
}
is_active_now() { [[ $(inside systemctl is-active tokend.service) == active ]]; }
hangs() {
  local pid
  pid=$(main_pid)
  # The process exists but does nothing. Only the watchdog ends that.
  inside kill -STOP "$pid"
  comes 20 another "$pid"
}
crowd() { later "$1" within_box 240 runuser -u worker -- python3 /share/crowd.py 20 idp "/share/mark/$1"; comes 10 served; }
served() { says "200 token-1" steps worker connect get:idp; }
left() { mark "$1" && ended "$1" >/dev/null; }
reload_fails() {
  inside sh -c 'printf "[profiles.idp]\nmethod = [\n" >/etc/tokend/profiles.d/idp.toml'
  exits 1 inside systemctl reload tokend.service && inside rm /etc/tokend/profiles.d/idp.toml && inside systemctl reload tokend.service
}
kept_in_memory() { says 1 inside systemctl show -P NFileDescriptorStore tokend.service; }

test_restart() {
  prepare
  check "a socket of the service manager, and a token from an identity provider that goes down then" with_socket
  check "the credentials are in the descriptor store" comes 5 kept_in_memory
  check "callers ask" crowd orderly
  check "$rounds restarts and reloads" orderly
  check "… and the callers end" left orderly
  echo "        $(<"$WORK/orderly.said")"
  check "no call failed" is orderly broken 0
  check "no connection was refused" is orderly refused 0
  check "nothing else went wrong, and no token had expired" is orderly other 0
  check "there were calls" at_least orderly asked 500
  check "callers ask again" crowd killed
  check "killed $rounds times" killed_again
  check "… and hung once, which the watchdog ends" hangs
  check "… and the callers end" left killed
  echo "        $(<"$WORK/killed.said")"
  check "no connection was refused" is killed refused 0
  check "each call that broke succeeded when repeated" is killed again 0
  check "nothing else went wrong" is killed other 0
  check "the identity provider was asked once in all" requests 1
  check "systemctl reload fails when something keeps its last good state" reload_fails
  check "what was given by systemctl stop is forgotten" forgotten
  without_socket
}
forgotten() {
  inside systemctl stop tokend.service && says 0 inside systemctl show -P NFileDescriptorStore tokend.service
}
