# PrivateUsers= of the daemon, which then cannot identify its callers, and of callers.
# shellcheck shell=bash disable=SC2154

refused_and_said() {
  says closed steps worker connect get:user && comes 5 journal "stands for ids from another user namespace"
}
open_to_all() { inside sed -i -e '/^socket_group = /d' -e 's/^socket_mode = .*/socket_mode = "0666"/' /etc/tokend/tokend.toml; }
as_root_in_a_namespace() { inside runuser -u worker -- unshare --user --map-root-user "${client[@]}" "$@"; }

test_private() {
  # The overflow number belongs to this user, which is therefore always refused.
  check "nobody is refused" says closed unit side.service nobody SupplementaryGroups=tokend-clients connect get:user
  check "worker is not" says "200 token-of-user" steps worker connect get:user
  check "PrivateUsers=yes of a caller: its user is its own" says "200 token-of-user"$'\n'"$denied" \
    unit side.service worker PrivateUsers=yes connect get:user get:crew
  check "… and its groups" says "200 token-of-crew"$'\n'"$denied" unit side.service other PrivateUsers=yes connect get:crew get:user
  if older; then
    echo "SKIP    private: PrivateUsers=identity: this systemd does not know it"
  else
    check "PrivateUsers=identity of a caller" says "200 token-of-user"$'\n'"$denied" \
      unit side.service worker PrivateUsersEx=identity connect get:user get:daemon
    check "… root is root" says "200 token-of-daemon"$'\n'"$denied" unit side.service root PrivateUsersEx=identity connect get:daemon get:user
  fi
  check "a caller that calls itself root in its own namespace is not" says "$denied"$'\n'"200 token-of-user" \
    as_root_in_a_namespace connect get:daemon get:user
  check "… in a unit that may" says "$granted"$'\n'"$denied" unit orders@1.service worker PrivateUsers=yes connect get:unit get:daemon
  check "everybody may connect: in its own namespace the daemon can give the socket to no other group" open_to_all
  check "the daemon with PrivateUsers=yes starts" dropin private '[Service]' PrivateUsers=yes
  check "… refuses every foreign caller, and says why" refused_and_said
  check "… by group" says closed steps other connect get:crew
  check "… in a unit" says closed unit orders@1.service worker connect get:unit
  check "… and not root" says "200 token-of-daemon" steps root connect get:daemon
  check "without the drop-in it starts again" dropin private
  check "… and serves them" says "200 token-of-user" steps worker connect get:user
}
