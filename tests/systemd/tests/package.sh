# The Debian package: installed, used, upgraded under callers, removed, purged. Before that, the
# test takes out what the other tests have put into the box instead, and puts it back at the end.
# shellcheck shell=bash disable=SC2154

members=(worker ops other mover)
packaged() {
  # Another test may have built the packages already.
  [[ ! -e $SHARE/tokend-1.2.deb ]] || return 0
  has dpkg-deb || { echo "no dpkg-deb on this machine"; return 1; }
  local small=$WORK/tokend.small
  # A debug build is big, and its symbols are not needed here.
  strip -o "$small" "$TOKEND" 2>/dev/null || cp "$TOKEND" "$small"
  mkdir -p "$WORK/packages"
  package 1.0 && package 1.1 && changed_conffile && one_group
}
package() {
  TOKEND=$WORK/tokend.small VERSION=$1 COMPRESSION=none CARGO_TARGET_DIR=$WORK/packages timeout 120 "$ROOT/packaging/deb" >"$WORK/package.path" && cp "$(<"$WORK/package.path")" "$SHARE/tokend-$1.deb"
}
# Builds a later version that ships another configuration file.
changed_conffile() {
  local tree=$WORK/packages/1.2
  dpkg-deb -R "$SHARE/tokend-1.1.deb" "$tree" &&
    sed -i 's/^Version: .*/Version: 1.2/' "$tree/DEBIAN/control" &&
    echo "# new in 1.2" >>"$tree/etc/tokend/tokend.toml" &&
    dpkg-deb --root-owner-group -Znone -b "$tree" "$SHARE/tokend-1.2.deb" >/dev/null
}

# Builds an earlier version, in which every user that may connect is in the daemon's group. The
# executable is today's.
one_group() {
  local tree=$WORK/packages/0.9
  dpkg-deb -R "$SHARE/tokend-1.0.deb" "$tree" &&
    sed -i 's/^Version: .*/Version: 0.9/' "$tree/DEBIAN/control" &&
    sed -i '/tokend-clients/d' "$tree/usr/lib/sysusers.d/tokend.conf" &&
    sed -i 's/^d .*secrets .*/d \/etc\/tokend\/secrets :0750 :root :tokend/' "$tree/usr/lib/tmpfiles.d/tokend.conf" &&
    sed -i 's/^SocketGroup=.*/SocketGroup=tokend/' "$tree/usr/lib/systemd/system/tokend.socket" &&
    sed -i -e '/^if getent group tokend >/d' -e '/^getent group tokend-clients /d' "$tree/DEBIAN/postinst" &&
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums) &&
    dpkg-deb --root-owner-group -Znone -b "$tree" "$SHARE/tokend-0.9.deb" >/dev/null
}

# Removes everything of tokend, so that the package finds the machine without it.
bare() {
  inside systemctl stop tokend.service tokend.socket 2>/dev/null
  inside bash -c 'rm -rf /usr/bin/tokend /etc/sysusers.d/tokend.conf /etc/tmpfiles.d/tokend.conf /etc/tokend /var/log/tokend /run/tokend \
    /etc/systemd/system/tokend.service /etc/systemd/system/tokend.socket /etc/systemd/system/tokend.service.d &&
    userdel tokend && { ! getent group tokend >/dev/null || groupdel tokend; } && groupdel tokend-clients &&
    systemctl daemon-reload && rm -rf /run/systemd/propagate/tokend.service /var/tmp/*tokend* /tmp/*tokend*'
}
put_back() {
  inside install -m 755 /share/tokend /usr/bin/tokend &&
    inside install -D -m 644 -t /etc/sysusers.d /share/systemd/sysusers.d/tokend.conf &&
    inside systemd-sysusers &&
    inside install -D -m 644 -t /etc/tmpfiles.d /share/systemd/tmpfiles.d/tokend.conf
  local name
  for name in "${members[@]}"; do inside usermod -a -G tokend-clients "$name"; done
}
# Prints every file name on the machine except logs and the private files of dpkg, systemd and
# passwd. Also prints every place that names tokend.
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
  says "755 root root, 755 root root, 700 tokend root, 644 root root, 755 root root, 755 tokend tokend, " inside stat --printf '%a %U %G, ' \
    /etc/tokend /etc/tokend/profiles.d /etc/tokend/secrets /etc/tokend/tokend.toml /usr/bin/tokend /run/tokend &&
    says "660 tokend tokend-clients" inside stat -c '%a %U %G' /run/tokend/tokend.sock
}
not_in_clients() {
  local gid
  gid=$(inside getent group tokend-clients | cut -d: -f3)
  [[ $gid ]] && inside grep '^Groups:' "/proc/$(main_pid)/status" && fails inside grep -qE "^(Groups|Gid):.*\b$gid\b" "/proc/$(main_pid)/status"
}
intact() { says "" inside dpkg --verify tokend; }
# Sets up a user who may connect, a secret and a profile, as docs/operations.md says.
set_up() {
  inside usermod -a -G "${1:-tokend-clients}" worker &&
    inside systemd-run --quiet --collect --unit=idp.service python3 /share/idp.py 8500 /run/idp.count &&
    inside sh -c 'echo the-secret | install -m 0400 -o tokend -g root /dev/stdin /etc/tokend/secrets/idp
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
# Sets up root's file, which the service manager hands over, as docs/operations.md says.
with_credential() {
  inside sh -c 'echo the-secret | install -m 0400 /dev/stdin /etc/tokend/secrets/loaded
    install -d /etc/systemd/system/tokend.service.d
    printf "[Service]\nLoadCredential=loaded:/etc/tokend/secrets/loaded\n" >/etc/systemd/system/tokend.service.d/credentials.conf
    printf "[profiles.loaded]\nmethod = \"static\"\ntoken = { credential = \"loaded\" }\naccess = [{ user = \"worker\" }]\n" >/etc/tokend/profiles.d/loaded.toml
    systemctl daemon-reload && systemctl restart tokend' && says "200 the-secret" steps worker connect get:loaded
}
without_credential() {
  inside sh -c 'rm -r /etc/systemd/system/tokend.service.d /etc/tokend/profiles.d/loaded.toml /etc/tokend/secrets/loaded && systemctl daemon-reload && systemctl restart tokend'
}
# Of tokend's files, a caller can read only the configuration, which has no secrets.
reads_no_secret() {
  says "$(printf '%s\n' "$@")" inside runuser -u worker -- sh -c 'find /etc/tokend /run/credentials/tokend.service /var/log/tokend -type f -readable 2>/dev/null | sort' &&
    fails inside runuser -u worker -- grep -rqsF the-secret /etc/tokend /run/credentials /run/tokend /var/log/tokend
}
admin() { inside runuser -u worker -- env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status --json | grep -q '"profiles"'; }
socket_run() { inside systemctl show -P InvocationID tokend.socket; }

# upgrade VERSION OPTION…: checks that the process is another one and the socket the same
upgrade() {
  local pid socket
  pid=$(main_pid) socket=$(socket_run)
  dpkg_i "$@" && version_is "$1" && runs && says "$socket" socket_run && fails says "$pid" main_pid
}
upgrades() {
  upgrade 1.1 && upgrade 1.2 --force-confdef --force-confold &&
    # The upgrade once more, and back: administrators do this when in doubt.
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
purged() { within_box 60 dpkg -P tokend && inside sh -c '! dpkg -s tokend' 2>/dev/null && inside sh -c '! getent passwd tokend && ! getent group tokend && ! getent group tokend-clients'; }
# The layout of the earlier package, with all changes that an administrator may have made.
before() {
  dpkg_i 0.9 && runs && says "660 tokend, 750 tokend, " inside stat --printf '%a %G, ' /run/tokend/tokend.sock /etc/tokend/secrets &&
    # Today's executable obtains nothing with a secret that its callers can read, but goes on with
    # the credential that it has.
    set_up tokend && inside sh -c 'cd /etc/tokend/secrets && chown root:tokend idp && chmod 640 idp && usermod -a -G tokend ops
      echo odd >odd && chgrp tokend odd && chmod 660 odd
      echo elsewhere >/root/elsewhere && chgrp tokend /root/elsewhere && chmod 640 /root/elsewhere && ln -s /root/elsewhere link
      printf "[Service]\nSupplementaryGroups=crew tokend\nExecStart=/bin/true\n" >/etc/systemd/system/of-group.service' &&
    comes 10 refused_as_readable && comes 10 kept_and_told
}
kept_and_told() { inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status idp | grep -F "can be read by the group tokend (worker, ops)"; }
refused_as_readable() { { inside tokend check || true; } | grep -F "secrets/idp can be read by the group tokend (worker, ops), and so by whoever may connect"; }
moved() {
  local socket
  socket=$(socket_run)
  dpkg_i 1.0 >"$WORK/dpkg.said" 2>&1 && runs && says "$socket" socket_run && says "200 token-1" steps worker connect get:idp
}
told() {
  local line
  for line in "worker is in the group tokend-clients now, and not in tokend" "ops is in the group tokend-clients now, and not in tokend" \
    "/etc/tokend/secrets/idp: tokend:root, mode 0400" "/etc/tokend/secrets: tokend:root, mode 0700" \
    "left as it is, though the group tokend can use it: /etc/tokend/secrets/odd" "/etc/systemd/system/of-group.service names the group tokend"; do
    grep -qF "$line" "$WORK/dpkg.said" || { echo "not told: $line: $(tr '\n' ' ' <"$WORK/dpkg.said")"; return 1; }
  done
}
owners_moved() {
  says "400 tokend root, 700 tokend root, 660 root tokend, 640 root tokend, 660 tokend tokend-clients, " inside stat --printf '%a %U %G, ' \
    /etc/tokend/secrets/idp /etc/tokend/secrets /etc/tokend/secrets/odd /root/elsewhere /run/tokend/tokend.sock &&
    says "" inside sh -c 'getent group tokend | cut -d: -f4' && inside tokend check
}
# connects GROUP: checks that a process with this group, started before, can connect
connects() { inside setpriv --reuid worker --regid worker --groups "$1" "${client[@]}" connect get:idp; }
made_anew() {
  says "200 token-1" connects tokend && inside sh -c 'systemctl stop tokend && systemctl restart tokend.socket && systemctl start tokend' &&
    says "no connection: Permission denied" connects tokend && fails says "no connection: Permission denied" connects tokend-clients
}
# The group of an inherited socket counts, whoever is in it.
refused_at_start() {
  inside sh -c 'chmod 711 /etc/tokend/secrets && chgrp tokend-clients /etc/tokend/secrets/idp && chmod 440 /etc/tokend/secrets/idp && systemctl stop tokend && systemctl start tokend' &&
    says "424 PROFILE_INVALID" steps worker connect get:idp && comes 5 journal "can be read by the group tokend-clients (worker"
}
tidied() { inside rm /etc/systemd/system/of-group.service /root/elsewhere && purged; }
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
  check "the daemon is not in the socket's group" not_in_clients
  check "tokend check accepts the configuration that is shipped" inside tokend check
  check "a profile, and the identity provider goes down" set_up
  check "systemctl reload goes well" inside systemctl reload tokend.service
  check "a caller can read the configuration, and no secret" reads_no_secret /etc/tokend/profiles.d/idp.toml /etc/tokend/tokend.toml
  check "… and tokend check has nothing to say" eval 'inside tokend check | grep -F "0 errors, 0 warnings"'
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
  check "a secret that the service manager hands over" with_credential
  check "… which no caller can read" reads_no_secret /etc/tokend/profiles.d/idp.toml /etc/tokend/profiles.d/loaded.toml /etc/tokend/tokend.toml /etc/tokend/tokend.toml.dpkg-dist
  check "… and without it" without_credential
  check "what was stopped and disabled stays so" stopped_stays_so
  check "dpkg -r stops everything and keeps the configuration" removed
  check "installed again, it runs" again
  check "dpkg -P" purged
  check "nothing is left" as_before
  check "an earlier package, with one group for callers and secrets" before
  check "callers ask" crowd moving
  check "an upgrade makes two of it, with the same socket" moved
  check "… and the callers end" left moving
  echo "        $(<"$WORK/moving.said")"
  check "no call failed" is moving broken 0
  check "no connection was refused" is moving refused 0
  check "nothing else went wrong" is moving other 0
  check "each change was told" told
  check "secrets, folder and socket have other owners, and what is an administrator's stays" owners_moved
  check "a caller can read no secret" reads_no_secret /etc/tokend/profiles.d/idp.toml /etc/tokend/tokend.toml
  check "who is only in the old group may connect until the socket is made anew" made_anew
  check "a secret that the socket's group can read is refused at start" refused_at_start
  check "dpkg -P" tidied
  check "nothing is left" as_before
  check "the box is as it was" put_back
}
