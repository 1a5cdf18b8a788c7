# A real Keycloak with TLS and client certificates: its download, start, end and Admin API; read by
# ./run and tests/e2e/run. Needs harness.sh and certificates.sh.
# shellcheck shell=bash disable=SC2154

KEYCLOAK=26.4.0

java_is_there() {
  local version
  has java && has keytool && version=$(java -version 2>&1) && [[ $version =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17))
}
keycloak_download() {
  fresh "$cache/keycloak" <(echo "$KEYCLOAK") && return
  timeout 900 mvn -q -B dependency:copy "-Dartifact=org.keycloak:keycloak-quarkus-dist:$KEYCLOAK:zip" "-DoutputDirectory=$cache/keycloak"
  made "$cache/keycloak"
}
# keycloak_material REALM: unpacks Keycloak into the current folder, whose authority is `ca`, with
# its certificate and the realm to import
keycloak_material() {
  REALM=$1
  certificate server ec /CN=localhost DNS:localhost
  ADMIN=s3cr3t-$(openssl rand -hex 16)
  keytool -importcert -noprompt -alias ca -file ca.pem -keystore trust.p12 -storetype PKCS12 -storepass trusted 2>/dev/null
  ORIGIN=https://localhost:$(free_ports 1)
  ISSUER=$ORIGIN/realms/$REALM
  # Keycloak is unpacked anew: it keeps a realm that it has imported.
  python3 -m zipfile -e "$cache/keycloak/keycloak-quarkus-dist-$KEYCLOAK.zip" .
  mkdir -p "keycloak-$KEYCLOAK/data/import"
  KEYCLOAK_REALM=$PWD/keycloak-$KEYCLOAK/data/import/$REALM-realm.json
  # kc.sh waits for its Java instead of becoming it, so the process to end is the Java.
  printf '#!/bin/sh\necho $$ >"%s/java.pid"\nexec java "$@"\n' "$WORK" >java
  chmod +x java
  mkdir "$WORK/tmp"
}
# keycloak [OPTION…]
keycloak() {
  start keycloak env JAVA="$WORK/java" JAVA_OPTS_KC_HEAP="-Xms64m -Xmx512m" JAVA_OPTS_APPEND="-XX:-UsePerfData -Djava.io.tmpdir=$WORK/tmp" \
    KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD="$ADMIN" KC_HTTPS_TRUST_STORE_PASSWORD=trusted \
    sh "keycloak-$KEYCLOAK/bin/kc.sh" start-dev --import-realm --http-enabled=false --http-host=127.0.0.1 \
    --https-port="${ORIGIN##*:}" --https-certificate-file="$WORK/server.pem" --https-certificate-key-file="$WORK/server.key" \
    --https-client-auth=request --https-trust-store-file="$WORK/trust.p12" --hostname="$ORIGIN" "$@"
  keycloak_answers
}
keycloak_answers() {
  local i
  for ((i = 0; i < 600; i++)); do
    ! curl -sSf -o /dev/null --max-time 5 --cacert ca.pem "$ISSUER/.well-known/openid-configuration" 2>/dev/null || return 0
    kill -0 "${children[keycloak]}" 2>/dev/null || { echo "keycloak has ended"; return 1; }
    sleep 0.2
  done
  echo "keycloak does not answer within two minutes"
  return 1
}
# Ends Java first; then its shell ends by itself.
end_keycloak() {
  [[ ! -s $WORK/java.pid ]] || kill "$(<"$WORK/java.pid")" 2>/dev/null || true
  end keycloak || true
  rm -f "$WORK/java.pid"
}
# shellcheck disable=SC2329  # clean() calls it
before_cleaning() { [[ ! ${children[keycloak]:-} ]] || end_keycloak; }

# admin METHOD PATH [CURL OPTIONS]: calls the Admin API. Tokens of administrators live for a minute.
admin() {
  local token
  token=$(curl -sSf --max-time 20 --cacert ca.pem "$ORIGIN/realms/master/protocol/openid-connect/token" \
    -d grant_type=password -d client_id=admin-cli -d username=admin -d "password=$ADMIN" | field .access_token)
  curl -sSf --max-time 20 --cacert ca.pem -X "$1" -H "Authorization: Bearer $token" "$ORIGIN/admin/realms/$REALM$2" "${@:3}"
}
# new_secret CLIENT FILE: sets the client's secret at Keycloak to that in the file
new_secret() {
  local id representation
  representation=$(admin GET "/clients?clientId=$1" | SECRET=$(<"$2") node -e '
    const [client] = JSON.parse(require("node:fs").readFileSync(0));
    console.log(JSON.stringify({ ...client, secret: process.env.SECRET }));') || return 1
  id=$(field .id <<<"$representation")
  admin PUT "/clients/$id" -H 'Content-Type: application/json' -d @- <<<"$representation"
}
