# The night of faults: three workers that never pause, and every fault of identity providers; read
# by ./run.
# shellcheck shell=bash disable=SC2154,SC2034

NIGHT=(secret x509 jwt)
# The life of a token, in seconds. LONG is for Keycloak's restart, which takes half a minute.
SHORT=60 LONG=300

seconds() { echo "${EPOCHREALTIME%.*}"; }
# made_necessary PROFILE…: records for necessary.mjs that each profile has to make a token request
# that no lifetime explains
made_necessary() {
  local one
  for one; do echo "$(seconds) $one" >>made-necessary; done
}
# Prints how many token requests for its realm Keycloak's own access log has.
asked_keycloak() { cat keycloak-all.log keycloak.log | grep -c "POST /realms/$REALM/protocol/openid-connect/token" || true; }
of_night() { "$TOKEND" status "$1" --json | field ".profiles[0]$2"; }
# until_so LIMIT COMMAND…: runs the command five times a second until it succeeds
until_so() {
  local i
  for ((i = 0; i < $1 * 5; i++)); do
    ! "${@:2}" >"$WORK/until" 2>&1 || return 0
    sleep 0.2
  done
  echo "not within $1 s: $* ($(tail -n 1 "$WORK/until"))"
  return 1
}

# --- What happens --------------------------------------------------------------------------------------------------------

lifetimes() { pause $((3 * SHORT)) && nobody_lacks_a_credential; }
# pause SECONDS: a pause that a signal ends
pause() {
  start pause sleep "$1"
  wait "${children[pause]}"
  unset "children[pause]"
}
# x509_rotated TO: replaces the key first, then the certificate; tells no process
x509_rotated() {
  cp "$1.pem" new.pem && cp "$1.key" new.key && mv new.key night.key && mv new.pem night.pem
  made_necessary x509
  until_so 20 is_bound_to "$1.pem"
}
is_bound_to() { equal "$(verified x509)" "night-x509 $(thumbprint "$1")"; }
secret_rotated() {
  local before
  before=$(fingerprint secret)
  echo "s3cr3t-$(openssl rand -hex 32)" >new.secret
  new_secret night-secret new.secret || return 1
  # For a moment one of the files is behind the other.
  sleep 2
  mv new.secret night.secret
  made_necessary secret
  until_so 20 is_another secret "$before"
}
fingerprint() { "$TOKEND" token "$1" --json | field .fingerprint; }
is_another() { [[ $(fingerprint "$1") != "$2" ]]; }
lifespan() { admin PUT "" -H 'Content-Type: application/json' -d "{\"realm\":\"$REALM\",\"accessTokenLifespan\":$1}"; }
# Every profile has a token whose life is longer than a SHORT one.
all_live_long() {
  local one
  for one in "${NIGHT[@]}"; do (($("$TOKEND" token "$one" --json | field .expires_in | cut -d. -f1) > SHORT)) || return 1; done
}
long_lives() {
  lifespan "$LONG" || return 1
  echo "$(seconds) lifespan $LONG" >>made-necessary
  until_so $((SHORT + 10)) all_live_long
}
keycloak_restarted() {
  end_keycloak
  cat keycloak.log >>keycloak-all.log
  keycloak "${KEYCLOAK_OPTIONS[@]}"
}
# Keycloak gets a new signing key. The old one no longer signs or verifies anything.
signing_key_replaced() {
  local id old one
  id=$(admin GET "" | field .id) || return 1
  old=$(admin GET "/components?type=org.keycloak.keys.KeyProvider" | node -e '
    const found = JSON.parse(require("node:fs").readFileSync(0)).filter((one) => one.providerId === "rsa-generated");
    for (const one of found) {
      for (const key of ["active", "enabled"]) one.config[key] = ["false"];
      console.log(JSON.stringify(one));
    }') || return 1
  admin POST /components -H 'Content-Type: application/json' -d "{\"name\":\"next\",\"parentId\":\"$id\",\"providerId\":\"rsa-generated\",
    \"providerType\":\"org.keycloak.keys.KeyProvider\",\"config\":{\"priority\":[\"200\"],\"enabled\":[\"true\"],\"active\":[\"true\"]}}" || return 1
  while read -r one; do
    admin PUT "/components/$(field .id <<<"$one")" -H 'Content-Type: application/json' -d "$one" || return 1
  done <<<"$old"
}
# The API keeps the keys that it knows until it restarts.
api_restarted() {
  local one before=()
  for one in "${NIGHT[@]}"; do before+=("$(fingerprint "$one")"); done
  end api || true
  api oidc || return 1
  made_necessary "${NIGHT[@]}"
  for one in "${!NIGHT[@]}"; do until_so 30 is_another "${NIGHT[one]}" "${before[one]}" || return 1; done
}
tokend_restarted() {
  end_serving && made_necessary "${NIGHT[@]}" && serve night
}

# --- What is counted -----------------------------------------------------------------------------------------------------

nobody_lacks_a_credential() {
  local one
  for one in "${nightly[@]}"; do
    kill -0 "${children[worker-$one]}" 2>/dev/null || { echo "the worker in $one has ended: $(tail -n 2 "worker-$one.log")"; return 1; }
    ! grep "no credential" "worker-$one.log" || return 1
  done
}
# start_worker LANGUAGE PROFILE: writes the worker's final report to LANGUAGE.json
start_worker() {
  start "worker-$1" bash -c 'exec "${@:2}" >"$1.json"' - "$1" ${worker[$1]} "$2"
}
every_job_completed() {
  local one status=0
  for one in "${nightly[@]}"; do
    end_worker "$one" || { echo "the worker in $one ended with $?: $(tail -n 2 "worker-$one.log")"; status=1; }
  done
  return "$status"
}
# No process of the worker is left: the worker waits for them itself.
end_worker() {
  local pid=${children[worker-$1]} i
  kill "$pid" 2>/dev/null || true
  for ((i = 0; i < 300; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  end "worker-$1"
}
# totals EXPRESSION: applies it to the reports of all workers
totals() { jq -s -c -r "$1" "${nightly[@]/%/.json}"; }
enough_jobs() {
  local jobs
  jobs=$(totals 'map(.jobs) | add')
  echo "$jobs jobs in $1 s, $((jobs / $1)) a second"
  ((jobs >= 20 * $1))
}
handed_over_in_time() { local status=0; end handover || status=$?; cat handover.log; return "$status"; }
none_failed() { equal "$(totals 'map(.failed) | add')" 0; }
# With a replaced signing key, the API refuses one call per profile and worker. It refuses no other
# call.
refused_once_each() { equal "$(totals 'map(.rejected)')" "[1,1,1]"; }
requests_as_necessary() { node "$here/necessary.mjs" made-necessary "$1" "$2" "$3" "$SHORT" "${NIGHT[@]}"; }

night() {
  local language start_at end_at before failed
  failed=$(failures)
  nightly=()
  for language in python node go java; do
    [[ ! ${worker[$language]:-} ]] || nightly+=("$language")
  done
  nightly=("${nightly[@]:0:3}")
  ((${#nightly[@]} == 3)) || { skip "the night of faults: fewer than three workers"; return; }
  cp orders.pem night.pem && cp orders.key night.key && cp orders.secret night.secret
  sed "s|@ISSUER@|$ISSUER|; s|@API@|$API|; s|@USER@|$(id -un)|" "$here/night.toml" >night.toml
  : >made-necessary
  : >keycloak-all.log
  before=$(asked_keycloak)
  start_at=$(seconds)
  serve night
  "$TOKEND" wait "${NIGHT[@]}" --timeout 30s || die "no tokens for the night"
  for language in 0 1 2; do start_worker "${nightly[language]}" "${NIGHT[language]}"; done
  start handover env TOKEND="$TOKEND" node "$here/handover.mjs" "${NIGHT[@]}"

  check "night: three lifetimes of $SHORT s pass" lifetimes
  check "night: the certificate is rotated, RSA to EC, and nobody is told: in force" x509_rotated orders-2
  check "night: … and EC to RSA" x509_rotated orders-3
  check "night: the secret is rotated at Keycloak, then in the file: in force" secret_rotated
  check "night: tokens live for $LONG s from now on" long_lives
  check "night: Keycloak is restarted" keycloak_restarted
  check "night: Keycloak's signing key is replaced, the old one disabled" signing_key_replaced
  check "night: nobody has lacked a credential so far" nobody_lacks_a_credential
  check "night: the API is restarted: it refuses the tokens there are, and others take their place" api_restarted
  check "night: every credential was there before the one before it expired" handed_over_in_time
  check "night: tokend is restarted" tokend_restarted
  pause 10
  end_at=$(seconds)
  check "night: every job that was started was completed" every_job_completed
  for language in "${nightly[@]}"; do echo "    $language: $(<"$language.json")"; done
  check "night: at least 20 jobs a second" enough_jobs $((end_at - start_at))
  check "night: no call failed for want of a credential" none_failed
  echo "    $(totals '"\(map(.calls) | add) calls, \(map(.rejected) | add) answered with 401, \(map(.failed) | add) failed for want of a credential; the longest wait for one \(map(.credential_ms) | max) ms, between two jobs \(map(.gap_ms) | max) ms"')"
  check "night: one call per worker was refused, when the signing key was replaced" refused_once_each
  check "night: token requests at most 20 % more than lifetimes and faults make necessary" \
    requests_as_necessary "$start_at" "$end_at" $(($(asked_keycloak) - before))
  check "night: SIGTERM" end_serving
  cell "night of faults" "$failed" ok
}
