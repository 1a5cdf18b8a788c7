# A process connects and exits. By the time of the look-up, its number belongs to another process.
# shellcheck shell=bash disable=SC2154

# reused TEXT CONNECTOR'S UNIT, LATER UNIT: checks what such a connection can get. The connector was
# in one unit, and its number is in the other now. The new process with that number prints what it
# gets by itself, to show that it is in its unit.
reused() {
  local number should=$1 first=$2 second=$3 group status=0
  rm -f "$SHARE"/mark/{go,end,there}
  later holder unit "$second" root connect mark:/share/mark/there wait:/share/mark/end
  comes 10 marked there || return 1
  group=/sys/fs/cgroup$(inside systemctl show -P ControlGroup "$second")
  later taker steps other "take:$hand" wait:/share/mark/go get:unit
  number=$(unit "$first" worker connect pid "give:$hand") || return 1
  says "$should" reborn_and_ask "$number" "$group" || status=1
  mark go
  says "$denied" ended taker || status=1
  mark end
  ended holder || status=1
  return "$status"
}
# The new process lives on while the connection is used.
reborn_and_ask() {
  rm -f "$SHARE/mark/alive"
  later reborn inside unshare -m sh -c 'mount -o remount,bind,rw /proc/sys && exec "$@"' _ \
    "${client[@]}" "reborn:$1:$2:worker" pid connect get:unit mark:/share/mark/alive wait:/share/mark/end
  comes 20 marked alive || { cat "$WORK/reborn.said"; return 1; }
  said reborn "$1" || { echo "another number"; return 1; }
  tail -n 1 "$WORK/reborn.said"
}

# The number of a deleted user goes to the next user that is made. No event tells the daemon, and
# its next look by time is far away.
deleted() {
  local status=0
  inside useradd -M -U -u 3100 -G tokend-clients leaver || return 1
  configure profiles.d/leaving.toml <<<$'[profiles.leaving]\nmethod = "none"\naccess = [{ user = "leaver" }]' || status=1
  says "200 " steps leaver connect get:leaving || status=1
  inside userdel leaver && inside useradd -M -U -u 3100 -G tokend-clients newcomer || return 1
  comes 3 says "$denied" steps newcomer connect get:leaving || status=1
  inside userdel newcomer || status=1
  return "$status"
}

test_reused() {
  check "from a unit that may not to one that may" reused "$granted" side.service orders@1.service
  check "from a unit that may to one that may not" reused "$denied" orders@1.service side.service
  check "a deleted user's, which the next user gets: within 3 s" deleted
}
