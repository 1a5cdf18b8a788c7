// Asks the daemon for tokens and verifies each against the keys of its issuer, as an API would.
//
// usage: node verify.mjs ISSUER PROFILE… One line per profile: its client and the thumbprint of the
// certificate that the token is bound to, or a dash; what is wrong with a token ends the program
// with 1. Needs TOKEND_SOCKET, and NODE_EXTRA_CA_CERTS for an issuer with a CA of its own.

import { createRemoteJWKSet, jwtVerify } from 'jose';
import { ask } from './ask.mjs';

async function verify(issuer, profiles) {
  const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
  for (const profile of profiles) {
    const answer = await ask(profile);
    const { payload } = await jwtVerify(answer.token, keys, { issuer });
    const thumbprint = payload.cnf?.['x5t#S256'] ?? '';
    if (thumbprint !== answer.confirmation) {
      throw new Error(`${profile}: the token is bound to »${thumbprint}«, the answer says »${answer.confirmation}«`);
    }
    console.log(`${payload.client_id ?? payload.azp} ${thumbprint || '-'}`);
  }
}

const [issuer, ...profiles] = process.argv.slice(2);
await verify(issuer, profiles).catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
