# The Debian package: installed, used, upgraded under callers, removed, purged. What the other tests have put into the box in its
# stead is taken out before, and put back at the end.
# shellcheck shell=bash disable=SC2154

members=(worker ops other mover)
packaged() {
  # Another test may have needed them.
  [[ ! -e $SHARE/tokend-1.2.deb ]] || return 0
  has dpkg-deb || { echo "no dpkg-deb on this machine"; return 1; }
  local small=$WORK/tokend.small
  # A debug build is big; the symbols are no use here.
  strip -o "$small" "$TOKEND" 2>/dev/null || cp "$TOKEND" "$small"
  mkdir -p "$WORK/packages"
  package 1.0 && package 1.1 && changed_conffile
}
package() {
  TOKEND=$WORK/tokend.small VERSION=$1 COMPRESSION=none CARGO_TARGET_DIR=$WORK/packages timeout 120 "$ROOT/packaging/deb" >"$WORK/package.path" && cp "$(<"$WORK/package.path")" "$SHARE/tokend-$1.deb"
}
# A later version that ships another configuration file.
changed_conffile() {
  local tree=$WORK/packages/1.2
  dpkg-deb -R "$SHARE/tokend-1.1.deb" "$tree" &&
    sed -i 's/^Version: .*/Version: 1.2/' "$tree/DEBIAN/control" &&
    echo "# new in 1.2" >>"$tree/etc/tokend/tokend.toml" &&
    dpkg-deb --root-owner-group -Znone -b "$tree" "$SHARE/tokend-1.2.deb" >/dev/null
}

# Nothing of tokend: as the package finds a machine.
bare() {
  inside systemctl stop tokend.service tokend.socket 2>/dev/null
  inside bash -c 'rm -rf /usr/bin/tokend /etc/sysusers.d/tokend.conf /etc/tmpfiles.d/tokend.conf /etc/tokend /var/log/tokend /run/tokend \
    /etc/systemd/system/tokend.service /etc/systemd/system/tokend.socket /etc/systemd/system/tokend.service.d &&
    userdel tokend && { ! getent group tokend >/dev/null || groupdel tokend; } &&
    systemctl daemon-reload && rm -rf /run/systemd/propagate/tokend.service /var/tmp/*tokend* /tmp/*tokend*'
}
put_back() {
  inside install -m 755 /share/tokend /usr/bin/tokend &&
    inside install -D -m 644 -t /etc/sysusers.d /share/systemd/sysusers.d/tokend.conf &&
    inside systemd-sysusers &&
    inside install -D -m 644 -t /etc/tmpfiles.d /share/systemd/tmpfiles.d/tokend.conf
  local name
  for name in "${members[@]}"; do inside usermod -a -G tokend "$name"; done
}
# Every name on the machine but for logs and what dpkg, systemd and passwd keep for themselves; and what names tokend anywhere.
everything() {
  inside bash -c 'find /etc /usr /var /opt /srv -xdev \( -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/log -o -name __pycache__ \
    -o -path "/etc/*-" -o -path /var/tmp -o -path /var/cache/ldconfig \) -prune -o -print | sort
    find / -xdev \( -path /proc -o -path /sys -o -path /share -o -path /var/log/journal \) -prune -o -name "*tokend*" -print
    find /run -name "*tokend*" -not -path "/run/systemd/units/*" | sort
    getent passwd; getent group; systemctl list-unit-files --no-legend --no-pager | grep tokend
    true'
}

dpkg_i() { within_box 60 env DEBIAN_FRONTEND=noninteractive dpkg "${@:2}" -i "/share/tokend-$1.deb"; }
version_is() { says "install ok installed $1" inside dpkg-query -W -f '${Status} ${Version}' tokend; }
runs() { says "$(printf 'active\nactive')" inside systemctl is-active tokend.socket tokend.service; }
is_enabled() { says "$(printf 'enabled\nenabled')" inside systemctl is-enabled tokend.socket tokend.service; }
modes() {
  says "755 root root, 755 root root, 750 root tokend, 644 root root, 755 root root, 755 tokend tokend, " inside stat --printf '%a %U %G, ' \
    /etc/tokend /etc/tokend/profiles.d /etc/tokend/secrets /etc/tokend/tokend.toml /usr/bin/tokend /run/tokend &&
    # Its owner is root until the service is given the folder with all that is in it.
    says "660 tokend" inside stat -c '%a %G' /run/tokend/tokend.sock
}
intact() { says "" inside dpkg --verify tokend; }
# As an administrator would: a user who may connect, a secret, a profile.
set_up() {
  inside usermod -a -G tokend worker &&
    inside systemd-run --quiet --collect --unit=idp.service python3 /share/idp.py 8500 /run/idp.count &&
    inside sh -c 'echo the-secret >/etc/tokend/secrets/idp && chgrp tokend /etc/tokend/secrets/idp && chmod 640 /etc/tokend/secrets/idp
      cat >/etc/tokend/profiles.d/idp.toml <<TOML
[profiles.idp]
method = "oauth2"
token_url = "http://127.0.0.1:8500/token"
client_id = "it"
client_secret = { file = "/etc/tokend/secrets/idp" }
access = [{ user = "worker" }]
TOML
      printf "\n[server]\nadmins = [{ user = \"worker\" }]\n" >>/etc/tokend/tokend.toml' &&
    comes 10 served && inside systemctl stop idp.service
}
admin() { inside runuser -u worker -- env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status --json | grep -q '"profiles"'; }
socket_run() { inside systemctl show -P InvocationID tokend.socket; }

# upgrade VERSION OPTION…: another process, the same socket
upgrade() {
  local pid socket
  pid=$(main_pid) socket=$(socket_run)
  dpkg_i "$@" && version_is "$1" && runs && says "$socket" socket_run && fails says "$pid" main_pid
}
upgrades() {
  upgrade 1.1 && upgrade 1.2 --force-confdef --force-confold &&
    # The same once more, and back: what an administrator does when in doubt.
    upgrade 1.2 --force-confdef --force-confold && upgrade 1.1 --force-downgrade --force-confdef --force-confold && upgrade 1.2 --force-confdef --force-confold
}
kept() {
  inside grep -q '^admins = ' /etc/tokend/tokend.toml && fails inside grep -q 'new in 1.2' /etc/tokend/tokend.toml && admin
}
offered() { inside grep -q 'new in 1.2' /etc/tokend/tokend.toml.dpkg-dist; }
stopped_stays_so() {
  inside systemctl stop tokend.socket tokend.service && inside systemctl disable --quiet tokend.service && dpkg_i 1.2 --force-confold &&
    says "$(printf 'inactive\ninactive')" inside systemctl is-active tokend.socket tokend.service &&
    says disabled inside systemctl is-enabled tokend.service &&
    inside systemctl enable --quiet tokend.service && inside systemctl start tokend.socket tokend.service
}
removed() {
  within_box 60 dpkg -r tokend && says "$(printf 'inactive\ninactive')" inside systemctl is-active tokend.socket tokend.service &&
    inside test ! -e /usr/bin/tokend -a ! -e /run/tokend -a -e /etc/tokend/tokend.toml -a -e /etc/tokend/secrets/idp
}
again() { dpkg_i 1.2 --force-confold && runs && kept; }
purged() { within_box 60 dpkg -P tokend && inside sh -c '! dpkg -s tokend' 2>/dev/null && inside sh -c '! getent passwd tokend && ! getent group tokend'; }
as_before() {
  everything >"$WORK/after"
  diff "$WORK/before" "$WORK/after"
}

test_package() {
  check "packages of three versions" packaged
  check "a machine without tokend" bare
  everything >"$WORK/before"
  check "dpkg -i" dpkg_i 1.0
  check "the service runs" runs
  check "… and is enabled" is_enabled
  check "owners and modes" modes
  check "no file differs from the package's" intact
  check "tokend check accepts the configuration that is shipped" inside tokend check
  check "a profile, and the identity provider goes down" set_up
  check "the credentials are in the descriptor store" comes 5 kept_in_memory
  check "callers ask" crowd package
  check "five upgrades: each is a new process, and the same socket" upgrades
  check "… and the callers end" left package
  echo "        $(<"$WORK/package.said")"
  check "no call failed" is package broken 0
  check "no connection was refused" is package refused 0
  check "nothing else went wrong" is package other 0
  check "there were calls" at_least package asked 100
  check "the identity provider was asked once in all" requests 1
  check "the configuration is the administrator's" kept
  check "… and the package's is beside it" offered
  check "what was stopped and disabled stays so" stopped_stays_so
  check "dpkg -r stops everything and keeps the configuration" removed
  check "installed again, it runs" again
  check "dpkg -P" purged
  check "nothing is left" as_before
  check "the box is as it was" put_back
}
