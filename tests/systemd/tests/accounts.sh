# The account of one user, and those of its units within it: what one of them takes, only it lacks.
# shellcheck shell=bash disable=SC2154

# With this few connections for a user, a unit may have 48 of them.
few() {
  { printf '[server.limits]\nconnections_per_user = 64\n'; cat "$here/tokend.toml"; } >"$SHARE/few.toml"
  inside install -m 644 /share/few.toml /etc/tokend/tokend.toml && inside systemctl restart tokend.service
}
# Prints the users and units that have reached a limit, from the status.
reached() { inside tokend status --json | jq -r --arg name "$1" '.limits[] | select(.name == $name) | .reached_by[]?'; }
is_named() { reached connections_per_user | grep -q -- "$1"; }
owns_subordinate() {
  inside sh -c 'echo worker:200000:65536 >/etc/subuid' && inside tokend reload
}
# subordinate ID STEP…: runs a client with a subordinate id of worker. To the host, a process in a
# user namespace of worker looks like this.
subordinate() { inside setpriv --reuid "$1" --regid "$(inside id -g tokend-clients 2>/dev/null || inside getent group tokend-clients | cut -d: -f3)" --clear-groups "${client[@]}" "${@:2}"; }
answered_at_most() {
  local most=$1 said
  shift
  said=$("$@") || { echo "$said"; return 1; }
  ((${said%% *} <= most && ${said%% *} > 0)) || { echo "$said"; return 1; }
}

test_accounts() {
  check "64 connections for a user" few
  later hog unit hog.service worker hold:100 mark:/share/mark/hogged wait:/share/mark/enough
  check "a unit opens a hundred" comes 20 marked hogged
  check "… and is named" comes 5 is_named "unit hog.service"
  check "another unit of its user has its share" says "8 of 8" unit neighbour.service worker hold:8
  check "another user too" says "50 of 50" unit other.service other hold:50
  mark enough
  check "… and had three quarters of what its user may, and the few before its user was crowded" answered_at_most 56 ended hog
  check "worker owns subordinate uids" owns_subordinate
  later first subordinate 200001 hold:40 mark:/share/mark/first wait:/share/mark/done
  check "one of them takes forty" comes 20 marked first
  check "… and another what is left of its owner's" answered_at_most 24 subordinate 200002 hold:60
  check "… whose account is named" comes 5 is_named "uid $(inside id -u worker)"
  check "somebody else has all of its own" says "50 of 50" unit other.service other hold:50
  mark done
  check "… and the first had forty" says "40 of 40" ended first
}
