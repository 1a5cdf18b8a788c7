# Certificates, provider, configuration and daemon of the `mtls` tests; read by ../run.
# shellcheck shell=bash disable=SC2154

# The profiles that sign assertions: profile and client, algorithm, kind of key.
SIGNERS=(
  "rs256 RS256 rsa" "rs384 RS384 rsa" "rs512 RS512 rsa" "ps256 PS256 rsa" "ps384 PS384 rsa" "ps512 PS512 rsa"
  "es256 ES256 ec" "es384 ES384 p384" "es512 ES512 p521" "eddsa EdDSA ed25519"
)
HMACS=(hs256 hs384 hs512)

mtls_material() {
  local line name algorithm kind
  authority ca
  authority elsewhere
  certificate server ec /CN=localhost DNS:localhost
  mkdir -p mounted/..1 mounted/..2 mounted/..3
  # One kind of key after the other, under the same name: see mtls.sh.
  certificate mounted/..1/tls rsa /O=tokend/OU=interop/CN=dn
  certificate mounted/..2/tls ec /O=tokend/OU=interop/CN=dn
  certificate mounted/..3/tls ed25519 /O=tokend/OU=interop/CN=dn
  for line in mounted/..?; do mv "$line/tls.pem" "$line/tls.crt"; done
  ln -s ..1 mounted/..data
  ln -s ..data/tls.crt mounted/tls.crt
  ln -s ..data/tls.key mounted/tls.key
  certificate uri ec /O=tokend/CN=whatever URI:spiffe://tokend.example/workers/uri
  certificate uri-2 rsa /O=tokend/CN=whatever URI:spiffe://tokend.example/workers/uri
  certificate uri-3 ec /O=tokend/CN=whatever URI:spiffe://tokend.example/workers/uri
  certificate uri-other ec /O=tokend/CN=whatever URI:spiffe://tokend.example/workers/other
  self_signed self-1 ec /CN=self
  self_signed self-2 rsa /CN=self
  cp self-1.pem self.pem
  cp self-1.key self.key
  certificate other ec /O=tokend/OU=interop/CN=other
  certificate stranger ec /O=tokend/OU=interop/CN=dn "" elsewhere
  echo "s3cr3t-$(openssl rand -hex 32)" >hmac.secret
  for line in "${SIGNERS[@]}"; do
    read -r name algorithm kind <<<"$line"
    new_key "$name" "$kind"
    openssl pkey -in "$name.key" -pubout -out "$name.pub"
    echo "$name $algorithm" >>signers
  done
}
mtls_configuration() {
  local line name algorithm
  sed "s|@ISSUER@|$ISSUER|" "$here/mtls/tokend.toml" >tokend.toml
  for line in "${SIGNERS[@]}"; do
    read -r name algorithm _ <<<"$line"
    cat <<EOF
[profiles.$name]
method = "oauth2"
idp = "interop"
client_id = "$name"
client_auth = "private_key_jwt"
assertion = { key = "$name.key", algorithm = "$algorithm" }
resource = ["urn:api:signed"]
EOF
  done >>tokend.toml
  for name in "${HMACS[@]}"; do
    cat <<EOF
[profiles.$name]
method = "oauth2"
idp = "interop"
client_id = "$name"
client_auth = "client_secret_jwt"
client_secret = { file = "hmac.secret" }
assertion = { algorithm = "${name^^}" }
resource = ["urn:api:signed"]
EOF
  done >>tokend.toml
  chmod -R go= .
}
# The processes must be children of this shell, so this function runs in no subshell.
mtls_start() {
  MTLS=$WORK/mtls
  mkdir "$MTLS"
  cd "$MTLS"
  mtls_material
  cp "$here/mtls/idp.mjs" "$cache/node/mtls-idp.mjs"

  start mtls-idp node "$cache/node/mtls-idp.mjs" "$MTLS"
  until_there "$MTLS/mtls-idp.json" mtls-idp
  ISSUER=$(node -p "JSON.parse(require('node:fs').readFileSync('mtls-idp.json')).issuer")
  mtls_configuration
  start mtls-tokend env TOKEND_LOG=trace TOKEND_SOCKET="$MTLS/tokend.sock" "$TOKEND" serve --config "$MTLS/tokend.toml"
  until_there "$MTLS/tokend.sock" mtls-tokend
  export MTLS ISSUER
  cd "$here"
}
