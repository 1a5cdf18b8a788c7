# A real Camunda: its download, start and end; read by ./run.
# shellcheck shell=bash disable=SC2154,SC2034

CAMUNDA=8.6.0

# A Java that it runs on; sets JAVA_21
java_21_is_there() {
  local candidate version
  for candidate in "${JAVA_HOME:-}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
    [[ -x $candidate ]] && version=$("$candidate" -version 2>&1) && [[ $version =~ version\ \"([0-9]+) ]] || continue
    ((BASH_REMATCH[1] >= 21)) || continue
    JAVA_21=${candidate%/bin/java} CAMUNDA_JAVA_OPTS="-Xms64m -Xmx512m -XX:-UsePerfData -Djava.io.tmpdir=$WORK/tmp"
    # What it does with memory and native code asks for leave since then.
    ((BASH_REMATCH[1] < 24)) || CAMUNDA_JAVA_OPTS+=" --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow"
    return
  done
  return 1
}
camunda_download() {
  fresh "$cache/camunda" <(echo "$CAMUNDA") && return
  timeout 900 mvn -q -B dependency:copy "-Dartifact=io.camunda:camunda-zeebe:$CAMUNDA:tar.gz" "-DoutputDirectory=$cache/camunda"
  tar -xzf "$cache/camunda/camunda-zeebe-$CAMUNDA.tar.gz" -C "$cache/camunda"
  rm "$cache/camunda/camunda-zeebe-$CAMUNDA.tar.gz"
  made "$cache/camunda"
}
# camunda none|basic|oidc: at $API, with data of its own, which stay over a restart
camunda() {
  local ports more=()
  read -ra ports <<<"${camunda_ports[$1]}"
  API=http://localhost:${ports[0]}
  case $1 in
    none) more=(SPRING_PROFILES_ACTIVE=broker) ;;
    basic) more=(SPRING_PROFILES_ACTIVE=broker,auth-basic CAMUNDA_DATABASE_TYPE=elasticsearch "CAMUNDA_DATABASE_URL=http://127.0.0.1:$USERS") ;;
    oidc)
      local identity=ZEEBE_BROKER_GATEWAY_SECURITY_AUTHENTICATION_IDENTITY
      more=(
        SPRING_PROFILES_ACTIVE=broker,identity-auth ZEEBE_BROKER_GATEWAY_SECURITY_AUTHENTICATION_MODE=identity
        "${identity}_ISSUERBACKENDURL=$ISSUER" "${identity}_AUDIENCE=zeebe-api" "${identity}_TYPE=KEYCLOAK"
        "CAMUNDA_IDENTITY_ISSUER=$ISSUER" "CAMUNDA_IDENTITY_ISSUERBACKENDURL=$ISSUER" CAMUNDA_IDENTITY_AUDIENCE=zeebe-api CAMUNDA_IDENTITY_TYPE=KEYCLOAK
        "JAVA_OPTS=$CAMUNDA_JAVA_OPTS -Djavax.net.ssl.trustStore=$WORK/trust.p12 -Djavax.net.ssl.trustStorePassword=trusted"
      )
      ;;
  esac
  start camunda env JAVA_HOME="$JAVA_21" JAVACMD= JAVA_OPTS="$CAMUNDA_JAVA_OPTS" \
    SERVER_ADDRESS=127.0.0.1 SERVER_PORT="${ports[0]}" MANAGEMENT_SERVER_ADDRESS=127.0.0.1 MANAGEMENT_SERVER_PORT="${ports[1]}" \
    ZEEBE_BROKER_NETWORK_HOST=127.0.0.1 ZEEBE_BROKER_NETWORK_COMMANDAPI_PORT="${ports[2]}" ZEEBE_BROKER_NETWORK_INTERNALAPI_PORT="${ports[3]}" \
    ZEEBE_BROKER_GATEWAY_NETWORK_PORT="${ports[4]}" ZEEBE_BROKER_CLUSTER_INITIALCONTACTPOINTS="127.0.0.1:${ports[3]}" \
    ZEEBE_BROKER_DATA_DIRECTORY="$WORK/camunda-$1" ZEEBE_BROKER_DATA_DISK_ENABLEMONITORING=false \
    "${more[@]}" "$cache/camunda/camunda-zeebe-$CAMUNDA/bin/broker"
  camunda_answers
}
# With whatever status: it asks for a credential that this here has none of.
camunda_answers() {
  local i
  for ((i = 0; i < 600; i++)); do
    ! curl -s -o /dev/null --max-time 5 "$API/v2/topology" || return 0
    kill -0 "${children[camunda]}" 2>/dev/null || { echo "camunda has ended"; return 1; }
    sleep 0.2
  done
  echo "camunda does not answer within two minutes"
  return 1
}
