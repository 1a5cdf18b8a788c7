# Rules by unit: the unit that a caller is in, and things that only look like a unit.
# shellcheck shell=bash disable=SC2154

# Makes workers as they usually are: instances of a template. The template is removed again, for no
# transient unit can have the name of one of its instances.
with_template() {
  cat >"$SHARE/template" <<'UNIT'
[Service]
Type=oneshot
User=worker
EnvironmentFile=/run/orders-%i
ExecStart=/usr/bin/python3 /share/client.py $STEPS
StandardOutput=truncate:/share/mark/orders-%i
TimeoutStartSec=60
UNIT
  inside install -m 644 /share/template /etc/systemd/system/orders@.service && inside systemctl daemon-reload
}
without_template() { inside rm /etc/systemd/system/orders@.service && inside systemctl daemon-reload; }
# Runs an instance with these steps.
template() {
  local instance=$1
  shift
  inside sh -c "echo 'STEPS=$*' >/run/orders-$instance" && inside systemctl start "orders@$instance.service" && cat "$SHARE/mark/orders-$instance"
}
scope() { inside systemd-run --quiet --scope --collect "--unit=$1" runuser -u "$2" -- "${client[@]}" "${@:3}"; }
# Runs a unit of the user's own manager, which can give it any name. There is no bus to wait on, so
# the unit itself marks its end.
of_manager() {
  local uid
  uid=$(inside id -u "$1")
  rm -f "$SHARE"/mark/{managed,ended}
  inside systemctl start "user@$uid.service" &&
    inside runuser -u "$1" -- env "XDG_RUNTIME_DIR=/run/user/$uid" systemd-run --user --quiet --collect --unit=orders@1.service \
      -p StandardOutput=truncate:/share/mark/managed "${client[@]}" "${@:2}" mark:/share/mark/ended &&
    comes 10 marked ended && cat "$SHARE/mark/managed"
}
in_manager() {
  local said
  said=$(of_manager worker where connect get:unit get:unit-alone get:manager)
  [[ $said == /user.slice/user-*.slice/user@*.service/*/orders@1.service$'\n'"$denied"$'\n'"$denied"$'\n'"200 token-of-manager" ]] || { echo "$said"; return 1; }
}
in_session() {
  local said
  said=$(inside su -l worker -c "${client[*]} where connect get:unit get:manager get:session")
  [[ $said == /user.slice/user-*.slice/session-*.scope$'\n'"$denied"$'\n'"$denied"$'\n'"200 token-of-session" ]] || { echo "$said"; return 1; }
}
# A process outside the box's control groups, but beside them: seen from inside it is in
# /../orders@….service.
from_outside() {
  local there=$GROUPS_ROOT/$outside status=0
  mkdir "$there"
  # shellcheck disable=SC2016
  says "$1" timeout -k 2 30 bash -c 'echo $$ >"$1/cgroup.procs"; exec nsenter -t "$2" -m -r -w "${@:3}"' _ "$there" "$(<"$WORK/run/pid")" \
    setpriv --reuid worker --regid worker --init-groups "${client[@]}" connect "${@:2}" || status=$?
  rmdir_when_empty "$there" || status=1
  return "$status"
}
explained() { inside tokend explain "$@"; }

test_units() {
  with_template
  check "the template's instance has what it may" says "$granted" template 1 connect get:unit
  check "… each of them" says "$granted" template 22 connect get:unit
  check "… and nothing else" says "$denied" template 1 connect get:side
  without_template
  check "a transient unit of that name too" says "$granted" unit orders@1.service worker connect get:unit
  check "the same user in another unit" says "$denied" unit side.service worker connect get:unit
  check "… which has what is its own" says "200 token-of-side" unit side.service worker connect get:side
  check "the same user in no unit" says "$denied" steps worker connect get:unit
  check "a name without an instance" says "$denied" unit orders.service worker connect get:unit
  check "a name that only ends like it" says "$denied" unit my-orders@1.service worker connect get:unit
  check "another user in the right unit" says "$denied" unit orders@1.service other connect get:unit
  check "root in the right unit, without the user" says "$denied" unit orders@1.service root connect get:unit
  check "root where the unit alone counts" says "200 token-of-unit-alone" unit orders@1.service root connect get:unit-alone
  check "a group and a unit, both" says "200 token-of-unit-crew" unit orders@1.service other connect get:unit-crew
  check "… the group alone" says "$denied" unit side.service other connect get:unit-crew
  check "… the unit alone" says "$denied" unit orders@1.service worker connect get:unit-crew
  check "a unit or a user: the unit" says "200 token-of-unit-or-ops" unit orders@1.service worker connect get:unit-or-ops
  check "… the user" says "200 token-of-unit-or-ops" steps ops connect get:unit-or-ops
  check "… neither" says "$denied" steps worker connect get:unit-or-ops
  check "a scope" says "$denied" scope side.scope worker connect get:unit
  check "a unit of the user's own manager is in that manager's" in_manager
  check "a session" in_session
  check "a unit in a slice of a slice" says "$granted" unit orders@1.service worker Slice=shop-eu.slice connect get:unit
  check "… another one" says "$denied" unit side.service worker Slice=orders.slice connect get:unit
  check "a control group below a unit is that unit" says "$granted" unit orders@1.service worker Delegate=yes sub:below connect get:unit
  check "… whatever it calls itself" says "$denied"$'\n'"200 token-of-outer" \
    unit outer.service worker Delegate=yes sub:orders@1.service connect get:unit get:outer
  check "… and in whatever slice" says "$denied"$'\n'"200 token-of-outer" \
    unit outer.service worker Delegate=yes sub:a.slice/orders@1.service connect get:unit get:outer
  check "a process outside of systemd's control groups" from_outside "$denied"$'\n'"200 token-of-user" get:unit get:user
  check "explain: whom the rules permit" explained unit --as-user worker --as-unit orders@1.service
  check "explain: whom they do not" fails explained unit --as-user worker --as-unit side.service
}
