#!/usr/bin/env bash
# Client certificates and signed assertions against a real provider, and their rotation in the
# running daemon.
set -u
here=$(dirname "$0")
# shellcheck source=checks.sh
. "$here/checks.sh"
# shellcheck source=certificates.sh
. "$here/certificates.sh"
export TOKEND_SOCKET=$MTLS/tokend.sock NODE_EXTRA_CA_CERTS=$MTLS/ca.pem
cd "$MTLS" || exit

SIGNED=(rs256 rs384 rs512 ps256 ps384 ps512 es256 es384 es512 eddsa hs256 hs384 hs512)

verified() { node "$VERIFY" "$ISSUER" "$@"; }
# bound PROFILE CERTIFICATE: checks that the profile's token verifies and is bound to the
# certificate
bound() { equal "$(verified "$1")" "$1 $(thumbprint "$2")"; }
# soon COMMAND…: checks that the command succeeds within ten seconds
soon() {
  local said i
  for ((i = 0; i < 50; i++)); do
    if said=$("$@" 2>&1); then return 0; fi
    sleep 0.2
  done
  echo "not within 10 s: $said"
  return 1
}
field() { node -pe "JSON.parse(require('node:fs').readFileSync(0))$1"; }
of_status() { "$TOKEND" status "$1" --json | field ".profiles[0]$2"; }

signed() {
  local name expected=
  for name in "${SIGNED[@]}"; do expected+="$name -"$'\n'; done
  equal "$(verified "${SIGNED[@]}")" "${expected%$'\n'}"
}
opaque() {
  local answer
  answer=$("$TOKEND" token opaque | tr -d '\n' | curl -sS --max-time 10 --cacert ca.pem "$ISSUER/token/introspection" \
    -d client_id=secret --data-urlencode "client_secret@hmac.bare" --data-urlencode token@-)
  equal "$(field '.active' <<<"$answer") $(field ".cnf['x5t#S256']" <<<"$answer")" "true $(thumbprint uri.pem)"
}
# rejected PROFILE: checks that the provider refuses, by exit status and by words that name the
# cause and the cure
rejected() {
  local said
  said=$(exits 5 "$TOKEND" token "$1" 2>&1) || { echo "$said"; return 1; }
  contains "$said" invalid_client UPSTREAM_REJECTED "certificate" client_id tls.certificate && equal "$(of_status "$1" .last_error.oauth_error)" invalid_client
}
# put CERTIFICATE FILE: replaces certificate and key as a careful program does
put() {
  cp "$1.pem" "$2.pem.new" && cp "$1.key" "$2.key.new" && mv "$2.key.new" "$2.key" && mv "$2.pem.new" "$2.pem"
}
# swap N: replaces the files as Kubernetes does
swap() { ln -s "..$1" mounted/..tmp && mv -T mounted/..tmp mounted/..data; }
# Either the reload or the daemon's own look at its files may take a change over first; both must
# report it.
reloaded() {
  local said
  said=$(exits 0 "$TOKEND" reload) || { echo "$said"; return 1; }
  if [[ $said != *"$1: changed"* ]]; then
    ! grep -q "^$1: " <<<"$said" || { echo "$said"; return 1; }
    equal "$(of_status "$1" .reload.outcome)" changed
  fi
}
swapped() {
  swap "$1" && soon bound dn "mounted/..$1/tls.crt"
}
# replaced CERTIFICATE FILE PROFILE
replaced() { put "$1" "$2" && reloaded "$3" && bound "$3" "$1.pem"; }
refused_replacement() {
  local before said
  before=$("$TOKEND" token uri) && put uri-other uri
  said=$(exits 1 "$TOKEND" reload) || { echo "$said"; return 1; }
  contains "$said" "uri: rejected" invalid_client tls.certificate && equal "$("$TOKEND" token uri)" "$before" &&
    equal "$(of_status uri .state)" fresh && contains "$("$TOKEND" status uri)" "not in force" invalid_client
}

tr -d '\n' <hmac.secret >hmac.bare
check "tls_client_auth by subject DN, at the issuer's mTLS alias; the token is bound" bound dn mounted/tls.crt
check "tls_client_auth by SAN URI; the token is bound" bound uri uri.pem
check "self_signed_tls_client_auth; the token is bound" bound self-signed self-1.pem
check "client_secret_post with a certificate; the token is bound" bound secret uri.pem
check "an opaque token is bound, says the provider" opaque
check "private_key_jwt and client_secret_jwt: ${SIGNED[*]}" signed
check "another name in the certificate: rejected" rejected other-name
check "an authority that the provider does not know: rejected" rejected stranger
check "a self-signed certificate that is not registered: rejected" rejected unregistered
check "an endpoint that asks for no certificate: rejected" rejected unasked
check "rotation by a swapped link, RSA to EC: the next token is bound to the new certificate" swapped 2
check "… EC to Ed25519" swapped 3
check "… and back to RSA" swapped 1
check "rotation by renaming: tokend reload says changed, the next token is bound to the new certificate" replaced uri-2 uri uri
check "rotation of a self-signed certificate" replaced self-2 self self-signed
check "a certificate that the provider rejects: tokend reload says so and exits with 1, the old token is served" refused_replacement
check "… until one comes that it accepts" replaced uri-3 uri uri
done_checking
