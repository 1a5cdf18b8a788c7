# Starts in trouble: other profiles are served, the daemon reports the trouble, and it passes by
# itself.
# shellcheck shell=bash disable=SC2154

# state PROFILE: prints the daemon's status of the profile
state() { inside env TOKEND_SOCKET=/run/tokend/tokend.sock PYTHONPATH=/share sh -c 'tokend status --json | python3 -c "
import sys
from plain import loads
print(*[profile[\"state\"] for profile in loads(sys.stdin.read())[\"profiles\"] if profile[\"name\"] == sys.argv[1]])" '"$1"; }
status_line() { inside systemctl show -P StatusText tokend.service | grep -F -- "$1"; }
troubled() {
  inside sh -c 'cat >/etc/tokend/profiles.d/troubled.toml <<TOML
[profiles.down]
method = "oauth2"
token_url = "http://127.0.0.1:8501/token"
client_id = "it"
client_secret = { file = "/etc/tokend/secrets/user" }
access = [{ user = "worker" }]

[profiles.missing]
method = "static"
token = { file = "/etc/tokend/secrets/missing" }
access = [{ user = "worker" }]
TOML
    cat >/etc/tokend/profiles.d/bad.toml <<TOML
[profiles.bad]
method = "oauth2"
nonsense = true
TOML
    printf "\n[audit]\nsink = \"file\"\npath = \"/var/log/tokend/audit.jsonl\"\n" >>/etc/tokend/tokend.toml
    install -d -o tokend -g tokend -m 750 /var/log/tokend && mount -t tmpfs -o size=16k,uid=$(id -u tokend),gid=$(id -g tokend),mode=750 tmpfs /var/log/tokend &&
      ! dd if=/dev/zero of=/var/log/tokend/full bs=4k 2>/dev/null'
}
# The daemon is ready before an identity provider has answered.
starts_soon() {
  local start=${EPOCHREALTIME/./}
  inside systemctl restart tokend.service || return 1
  ((${EPOCHREALTIME/./} - start < 3000000)) || { echo "after $(((${EPOCHREALTIME/./} - start) / 1000)) ms"; return 1; }
}
others_are_served() { says "200 token-of-user" steps worker connect get:user; }
room_again() { inside sh -c 'rm /var/log/tokend/full' && says "200 token-of-user" steps worker connect get:user && comes 15 inside grep -q '"profile":"user"' /var/log/tokend/audit.jsonl; }
audit_trouble() { inside env TOKEND_SOCKET=/run/tokend/tokend.sock tokend status | grep -i 'audit' | grep -i 'space'; }
secret_comes() { inside sh -c 'echo token-of-missing >/etc/tokend/secrets/new && chown tokend:root /etc/tokend/secrets/new && chmod 400 /etc/tokend/secrets/new && mv /etc/tokend/secrets/new /etc/tokend/secrets/missing'; }
provider_comes() { inside systemd-run --quiet --collect --unit=idp-of-trouble.service python3 /share/idp.py 8501 /run/idp-of-trouble.count; }
fails_at_once() {
  inside sh -c 'mkdir -p /etc/systemd/system/tokend.service.d && printf "[Service]\nExecStart=\nExecStart=/bin/false\n" >/etc/systemd/system/tokend.service.d/false.conf && systemctl daemon-reload'
  fails inside systemctl restart tokend.service
}
restarts_ever_more_slowly() {
  local restarts most=12
  # Without RestartSteps= the daemon starts four times a second.
  ! older || most=40
  sleep 8
  restarts=$(inside systemctl show -P NRestarts tokend.service)
  ((restarts >= 3 && restarts <= most)) || { echo "$restarts restarts in 8 s"; return 1; }
}

test_troubled() {
  check "an identity provider that is down, a secret that is missing, a profile that is wrong, a full disk" troubled
  check "it starts all the same, at once" starts_soon
  check "others are served" others_are_served
  check "a full disk is said" comes 10 audit_trouble
  check "the identity provider is said to be down" comes 10 says backoff state down
  check "the missing secret is said" says invalid state missing
  check "the wrong profile is said" says invalid state bad
  check "systemctl status names them" comes 10 status_line "missing"
  check "the provider comes" provider_comes
  check "… and the profile is served" comes 40 says "200 token-1" steps worker connect get:down
  check "the secret comes" secret_comes
  check "… and the profile is served" comes 20 says "200 token-of-missing" steps worker connect get:missing
  check "room comes, and the record goes on" room_again
  inside systemctl stop idp-of-trouble.service
  inside umount /var/log/tokend
  check "a daemon that cannot start" fails_at_once
  check "… is started again, ever more slowly" restarts_ever_more_slowly
  inside rm /etc/systemd/system/tokend.service.d/false.conf
  inside systemctl daemon-reload
  check "repaired, it starts" inside systemctl restart tokend.service
  check "… and serves" others_are_served
}
