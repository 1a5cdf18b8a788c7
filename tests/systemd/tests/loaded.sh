# Secrets as systemd credentials, plain and encrypted, and their rotation.
# shellcheck shell=bash disable=SC2154

sources=/etc/credstore.of.tests
# plain TEXT, sealed TEXT: set the secret that systemd loads from now on
plain() { inside sh -c "install -d -m 700 $sources && printf %s '$1' >$sources/plain && chmod 600 $sources/plain"; }
sealed() {
  inside sh -c "install -d -m 700 $sources && printf %s '$1' >$sources/clear &&
    systemd-creds encrypt --with-key=host --name=sealed $sources/clear $sources/sealed.new && rm $sources/clear && mv $sources/sealed.new $sources/sealed" 2>&1
}
loads() {
  dropin loaded '[Service]' "LoadCredential=plain:$sources/plain" "LoadCredentialEncrypted=sealed:$sources/sealed" &&
    configure profiles.d/loaded.toml <<'TOML'
[profiles.plain]
method = "static"
token = { credential = "plain" }
access = [{ user = "worker" }]

[profiles.sealed]
method = "static"
token = { credential = "sealed" }
access = [{ user = "worker" }]
TOML
}
serves_both() { says "200 $1"$'\n'"200 $2" steps worker connect get:plain get:sealed; }
restart_it() { inside systemctl restart tokend.service; }
nobody_else_reads() { fails inside runuser -u worker -- ls /run/credentials/tokend.service; }
nothing_in_clear() { fails inside grep -rF "$1" "$sources"; }

test_loaded() {
  check "a credential, and an encrypted one" eval 'plain first-plain && sealed first-sealed'
  check "the encrypted one is" nothing_in_clear first-sealed
  check "profiles that use them" loads
  check "… are served" serves_both first-plain first-sealed
  check "nobody else can read them" nobody_else_reads
  check "others take their place" eval 'plain second-plain && sealed second-sealed'
  check "a reload goes well" inside systemctl reload tokend.service
  # From systemd 262 on this may be the second secret already: RefreshOnReload=.
  check "… and leaves what is loaded" serves_both first-plain first-sealed
  check "a restart takes them over" restart_it
  check "… and serves them" serves_both second-plain second-sealed
  check "one that is missing fails the start" eval "inside rm $sources/plain && fails restart_it"
  check "… whose source is back" eval 'plain third-plain && restart_it'
  check "… is served" serves_both third-plain second-sealed
  check "without them it starts again" eval 'inside rm -r /etc/tokend/profiles.d/loaded.toml && dropin loaded'
}
