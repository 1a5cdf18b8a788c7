# Which users may connect: the socket's mode and group.
# shellcheck shell=bash disable=SC2154

opened() {
  inside sed -i 's/^socket_mode = .*/socket_mode = "0666"/' /etc/tokend/tokend.toml &&
    inside systemctl restart tokend.service &&
    says "$denied" steps stranger connect get:user
}

# In the shipped sandbox no process can change a file's group. The unit says to do this for a group
# that is not the daemon's own.
of_crew() {
  inside sed -i 's/^socket_group = .*/socket_group = "crew"/' /etc/tokend/tokend.toml &&
    exits 1 inside systemctl restart tokend.service &&
    dropin group '[Service]' SupplementaryGroups=crew SystemCallFilter=@chown &&
    says "srw-rw---- tokend crew" inside stat -c '%A %U %G' /run/tokend/tokend.sock &&
    says "200 token-of-crew" steps other connect get:crew &&
    says "no connection: Permission denied" steps worker connect
}

test_door() {
  check "each of the group may connect" says "$denied" steps mover connect get:user
  check "by a supplementary group of a unit too" says "$denied" unit side.service stranger SupplementaryGroups=tokend-clients connect get:user
  check "who is not in the group may not" says "no connection: Permission denied" steps stranger connect
  check "nor with tokend token: 6" exits 6 inside runuser -u stranger -- env TOKEND_SOCKET=/run/tokend/tokend.sock tokend token user
  check "nor in a unit" says "no connection: Permission denied" unit orders@1.service stranger connect
  check "nor may anybody but the daemon replace the socket" fails inside runuser -u worker -- rm -f /run/tokend/tokend.sock
  check "another socket_group, with the drop-in that it takes" of_crew
  check "with another mode everybody may, and has nothing for that" opened
}
