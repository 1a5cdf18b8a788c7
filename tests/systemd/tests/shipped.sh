# The shipped unit and users, unchanged.
# shellcheck shell=bash disable=SC2154

unit_file=/etc/systemd/system/tokend.service

is_active() { says active inside systemctl is-active tokend.service && says 0 inside systemctl show -P NRestarts tokend.service; }
socket_is() { says "$1" inside stat -c '%A %U %G' /run/tokend/tokend.sock; }
# An older systemd ignores newer settings and says so. docs/operations.md describes each of these.
too_new="^$"
older() { (($(inside systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p') < 254)); }
verified() { says "" words_of_verify; }
words_of_verify() { inside systemd-analyze verify "$unit_file" 2>&1 | grep -vE "$too_new"; }
verify_complains() {
  inside sed -i 's/^NoNewPrivileges=/NoNewPrivilege=/' "$unit_file"
  fails verified
  inside install -m 644 /share/systemd/tokend.service "$unit_file"
}
# The rating is for the unit without the drop-in of the tests.
exposure() {
  inside sh -c 'mv /etc/systemd/system/tokend.service.d /run/dropins; systemd-analyze security --offline=yes --no-pager --threshold="$1" "$2"
    status=$?; mv /run/dropins /etc/systemd/system/tokend.service.d; exit "$status"' - "$1" "$2"
}
exposed() { exposure 14 "$unit_file"; }
more_exposed() {
  inside sh -c "mkdir -p /run/exposed && sed '/^SystemCallFilter=/d' $unit_file >/run/exposed/tokend.service"
  exits 1 exposure 14 /run/exposed/tokend.service
}
less_exposed() {
  # Offline, only the unit file itself counts.
  inside sh -c "mkdir -p /run/less && sed -e 's/^ProtectProc=.*/ProtectProc=invisible/' $unit_file >/run/less/tokend.service" && exposure 12 /run/less/tokend.service
}
# After a reload a new profile is there, in the same process.
reloads() {
  local pid
  pid=$(main_pid)
  says "$denied" steps worker connect get:added &&
    inside sh -c "printf '[profiles.added]\nmethod = \"none\"\naccess = [{ user = \"worker\" }]\n' >/etc/tokend/profiles.d/added.toml" &&
    inside systemctl reload tokend.service &&
    comes 5 says "200 " steps worker connect get:added &&
    says "$pid" main_pid
}
restarts() {
  local pid
  pid=$(main_pid)
  inside systemctl restart tokend.service && is_active && fails says "$pid" main_pid && says "200 token-of-user" steps worker connect get:user
}
comes_back() {
  local pid
  pid=$(main_pid)
  inside kill -9 "$pid"
  comes 10 says "200 token-of-user" steps worker connect get:user && fails says "$pid" main_pid
}
stops() {
  inside systemctl stop tokend.service && says success inside systemctl show -P Result tokend.service && inside test ! -e /run/tokend/tokend.sock
}
# With an unusable configuration the start fails, and is not tried again.
refuses() {
  inside sh -c 'echo nonsense >/etc/tokend/tokend.toml'
  exits 1 inside systemctl start tokend.service
  says failed inside systemctl is-failed tokend.service &&
    says 78 inside systemctl show -P ExecMainStatus tokend.service &&
    says 0 inside systemctl show -P NRestarts tokend.service
}

folders() {
  says "755 root root, 755 root root, $1, " inside stat --printf '%a %U %G, ' /etc/tokend /etc/tokend/profiles.d /etc/tokend/secrets
}
limited() { says "$(printf '1073741824\n1024')" inside systemctl show -P MemoryMax -P TasksMax tokend.service; }
an_administrators() {
  inside chmod 710 /etc/tokend/secrets && inside systemd-tmpfiles --create tokend.conf && folders "710 tokend root" && inside chmod 700 /etc/tokend/secrets
}

test_shipped() {
  ! older || too_new="Unknown key '(FileDescriptorStorePreserve|RestartSteps|RestartMaxDelaySec)' in section \[Service\], ignoring\.$"
  check "the unit starts and says READY" is_active
  check "it runs as tokend" says tokend inside sh -c "stat -c %U /proc/$(main_pid)"
  check "the socket has its mode and its group" socket_is "srw-rw---- tokend tokend-clients"
  check "its folder is open" says "drwxr-xr-x tokend" inside stat -c '%A %U' /run/tokend
  check "the folders of the configuration" folders "700 tokend root"
  check "… stay as an administrator has made them" an_administrators
  check "it has limits of memory and of threads" limited
  check "a caller is served" says "200 token-of-user" steps worker connect get:user
  check "systemd-analyze verify has nothing to say" verified
  check "… and has for an unknown key" verify_complains
  check "systemd-analyze security --threshold=14" exposed
  echo "        $(exposed 2>/dev/null | tail -n 1)"
  check "… which another unit does not meet" more_exposed
  check "with the drop-in for newer kernels 1.2" less_exposed
  check "systemctl reload" reloads
  check "systemctl restart" restarts
  check "killed, it comes back" comes_back
  check "systemctl stop leaves no socket" stops
  check "an unusable configuration is status 78, once" refuses
}
