#!/bin/bash
# Runs inside the box as root, and makes the state that every test starts from. It removes whatever
# the test before has left.
set -euo pipefail
shopt -s nullglob

# --- What is there once --------------------------------------------------------------------------------------------------

if [[ ! -e /usr/bin/tokend ]]; then
  install -m 755 /share/tokend /usr/bin/tokend
  install -D -m 644 -t /etc/sysusers.d /share/systemd/sysusers.d/*.conf
  systemd-sysusers
  install -D -m 644 -t /etc/tmpfiles.d /share/systemd/tmpfiles.d/*.conf
  for group in worker ops other crew; do groupadd "$group"; done
  # All of these users but the stranger may connect. What each may have is another question.
  for name in worker ops other; do useradd -M -g "$name" -G tokend-clients "$name"; done
  usermod -a -G crew other
  useradd -M -U stranger
  useradd -M -U -u 3001 -G tokend-clients mover
fi

# --- What a test may have changed ----------------------------------------------------------------------------------------

# These are the units that tests start by name. It is no error if one does not exist.
systemctl stop 'orders@*.service' 'outer.service' 'side.service' 'user@*.service' 'watcher-*.service' 2>/dev/null || true
systemctl stop tokend.service 2>/dev/null || true
rm -rf /etc/systemd/system/{tokend,orders@}.service /etc/systemd/system/tokend.service.d /etc/tokend /var/log/tokend
install -m 644 /share/systemd/tokend.service /etc/systemd/system/
# Most tests have no tokend.socket; there the daemon itself gives the socket to the group. `package`
# has everything as it is shipped.
install -d /etc/systemd/system/tokend.service.d
printf '[Service]\nSupplementaryGroups=tokend-clients\nSystemCallFilter=@chown\n' >/etc/systemd/system/tokend.service.d/clients.conf
usermod -u 3001 mover
systemd-tmpfiles --create /etc/tmpfiles.d/tokend.conf
install -m 644 /share/tokend.toml /etc/tokend/
sed -n 's/^\[profiles\.\(.*\)\]$/\1/p' /etc/tokend/tokend.toml | while read -r profile; do
  echo "token-of-$profile" >"/etc/tokend/secrets/$profile"
  chown tokend:root "/etc/tokend/secrets/$profile"
  chmod 400 "/etc/tokend/secrets/$profile"
done
find /share/mark -mindepth 1 -delete
systemctl daemon-reload
systemctl reset-failed
systemctl start tokend.service || {
  journalctl -q -o cat -u tokend.service -n 5
  exit 1
}
