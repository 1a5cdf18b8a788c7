# Starts with an unusable configuration, with and without a good one before, while a caller asks.
# shellcheck shell=bash disable=SC2154

activated() {
  inside systemctl stop tokend.service
  inside install -m 644 /share/systemd/tokend.socket /etc/systemd/system/ && inside systemctl daemon-reload &&
    inside systemctl start tokend.socket tokend.service && comes 5 in_store
}
in_store() { says 1 inside systemctl show -P NFileDescriptorStore tokend.service; }
break_toml() { inside sh -c 'cp /etc/tokend/tokend.toml /run/good.toml && echo "[server" >>/etc/tokend/tokend.toml'; }
repair_toml() { inside sh -c 'install -m 644 /run/good.toml /etc/tokend/new && mv /etc/tokend/new /etc/tokend/tokend.toml'; }
asks() { steps worker connect get:user; }
reload_fails_with() { exits 1 inside systemctl reload tokend.service && inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status | grep -F -- "$1"; }
run_of() { inside systemctl show -P InvocationID tokend.service; }
killed_once() {
  local before
  before=$(run_of)
  inside systemctl kill --signal=KILL tokend.service
  comes 10 another_run "$before"
}
another_run() { [[ $(run_of) != "$1" && $(inside systemctl is-active tokend.service) == active ]]; }
# Every caller within ten seconds gets its answer at once, and from the same run of the daemon.
refused_for_ten_seconds() {
  local end=$((SECONDS + 10)) before
  before=$(run_of)
  while ((SECONDS < end)); do
    says "503 CONFIGURATION_UNUSABLE" asks || return 1
  done
  says "$before" run_of
}
socket_is_there() { says active inside systemctl is-active tokend.socket && inside test -S /run/tokend/tokend.sock; }
begins_anew() { inside systemctl stop tokend.service && says "503 CONFIGURATION_UNUSABLE" asks; }
wrong_command() {
  inside sh -c 'printf "[Service]\nExecStart=\nExecStart=/usr/bin/tokend serve --nonsense\n" >/etc/systemd/system/tokend.service.d/wrong.conf'
  inside systemctl daemon-reload && inside systemctl stop tokend.service
}
# systemd starts the daemon again for a waiting caller each time it ends.
started_seldom() {
  local starts
  later asking within_box 40 runuser -u worker -- "${client[@]}" connect get:user
  sleep 12
  starts=$(inside journalctl -q -o cat -u tokend.service | grep -cF -- "--nonsense")
  ((starts >= 1 && starts <= 3)) || { echo "$starts starts in 12 s"; return 1; }
  socket_is_there
}
no_command() {
  inside sh -c 'printf "[Service]\nExecStart=\nExecStart=/usr/bin/false\n" >/etc/systemd/system/tokend.service.d/wrong.conf'
  inside systemctl daemon-reload && inside systemctl stop tokend.service
}
# Every command says so, with a way on that is not the command itself.
nobody_behind_the_socket() {
  local command
  for command in "status --timeout 500ms" "token user --timeout 500ms" "explain user --timeout 500ms" "doctor --offline --timeout 500ms"; do
    # shellcheck disable=SC2086  # words
    inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend $command >"$WORK/said" 2>&1
    grep -qF "systemd holds the socket, and no daemon runs behind it" "$WORK/said" &&
      grep -qF "systemctl status tokend" "$WORK/said" || { cat "$WORK/said"; return 1; }
  done
  exits 6 inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status --timeout 500ms
}
right_again() {
  inside rm /etc/systemd/system/tokend.service.d/wrong.conf
  inside systemctl daemon-reload && comes 25 says "200 token-of-user" asks
}

test_unusable() {
  check "a socket of the service manager" activated
  check "tokend.toml is broken" break_toml
  check "restarted with it, it starts" inside systemctl restart tokend.service
  check "… and serves what was defined before" says "200 token-of-user" asks
  check "systemctl status says so" comes 5 status_line "tokend.toml cannot be used"
  check "the journal has the error" journal "/etc/tokend/tokend.toml:"
  check "systemctl reload fails, and tokend status says why" reload_fails_with "tokend.toml:"
  check "killed, it starts again" killed_once
  check "… and serves" says "200 token-of-user" asks
  check "repaired" repair_toml
  check "… it is taken up, and systemctl reload succeeds" comes 15 inside systemctl reload tokend.service
  check "broken again, and nothing is kept" break_toml
  check "who comes to the socket is told the reason" begins_anew
  check "… again and again, by the same run" refused_for_ten_seconds
  check "systemctl status says so" comes 5 status_line "no configuration that can be used"
  check "systemctl reload fails, and tokend status says why" reload_fails_with "tokend.toml:"
  check "the socket is there" socket_is_there
  check "repaired" repair_toml
  check "… callers are served" comes 15 says "200 token-of-user" asks
  check "… and systemctl status says so" comes 5 status_line "serving"
  check "a command line that is wrong" wrong_command
  check "… is tried once in ten seconds, whoever asks" started_seldom
  check "a daemon that ends at once" no_command
  check "… and tokend's commands say that there is none behind the socket" comes 20 nobody_behind_the_socket
  check "right again, it serves" right_again
  without_socket
}
