// The identity provider of the `mtls` tests: `oidc-provider` behind two https addresses. The issuer
// asks nobody for a certificate; the address in its `mtls_endpoint_aliases` (RFC 8705, section 5)
// does.
//
// usage: node idp.mjs FOLDER FOLDER holds server.pem, server.key, ca.pem (who may issue client
// certificates), self-1.pem and self-2.pem (registered for the client `self-signed`), hmac.secret,
// and NAME.pub for every client in NAME.alg that signs. When it listens, the addresses are in
// FOLDER/mtls-idp.json. SIGTERM ends it.

import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const folder = process.argv[2];
const file = (name) => readFileSync(join(folder, name), 'utf8');
const listen = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port)));

// Whoever signs its assertions: `NAME ALGORITHM`, a line each.
const signers = file('signers').trim().split('\n').map((line) => line.split(' '));
const ALGORITHMS = ['HS256', 'HS384', 'HS512', ...new Set(signers.map(([, alg]) => alg))];

const bound = { tls_client_certificate_bound_access_tokens: true };
const selfSigned = ['self-1', 'self-2'].map(async (name) => {
  const certificate = new X509Certificate(file(`${name}.pem`));
  return { ...await exportJWK(certificate.publicKey), kid: name, x5c: [certificate.raw.toString('base64')] };
});
const clients = [
  { client_id: 'dn', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: 'CN=dn,OU=interop,O=tokend', ...bound },
  {
    client_id: 'uri',
    token_endpoint_auth_method: 'tls_client_auth',
    tls_client_auth_san_uri: 'spiffe://tokend.example/workers/uri',
    ...bound,
  },
  {
    client_id: 'self-signed',
    token_endpoint_auth_method: 'self_signed_tls_client_auth',
    jwks: { keys: await Promise.all(selfSigned) },
    ...bound,
  },
  // Bound to a certificate that proves nothing (RFC 8705, section 3.4 allows it).
  { client_id: 'secret', client_secret: file('hmac.secret').trim(), token_endpoint_auth_method: 'client_secret_post', ...bound },
  ...['HS256', 'HS384', 'HS512'].map((alg) => ({
    client_id: alg.toLowerCase(),
    client_secret: file('hmac.secret').trim(),
    token_endpoint_auth_method: 'client_secret_jwt',
    token_endpoint_auth_signing_alg: alg,
  })),
  ...await Promise.all(signers.map(async ([name, alg]) => ({
    client_id: name,
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: alg,
    jwks: { keys: [{ ...await exportJWK(createPublicKey(file(`${name}.pub`))), alg, use: 'sig' }] },
  }))),
].map((client) => ({ grant_types: ['client_credentials'], response_types: [], redirect_uris: [], id_token_signed_response_alg: 'ES256', ...client }));

const server = { cert: file('server.pem'), key: file('server.key') };
const plain = createServer(server);
// The provider judges certificates, not the handshake: so that a wrong one gets an answer.
const asking = createServer({ ...server, ca: file('ca.pem'), requestCert: true, rejectUnauthorized: false });
const issuer = `https://localhost:${await listen(plain)}`;
const alias = `https://localhost:${await listen(asking)}`;

/** As in RFC 4514: the last part of the name first. */
const subject = (certificate) => certificate.subject.split('\n').reverse().join(',');

const { privateKey } = await generateKeyPair('ES256', { extractable: true });
const provider = new Provider(issuer, {
  clients,
  jwks: { keys: [{ ...await exportJWK(privateKey), alg: 'ES256', use: 'sig', kid: 'mtls' }] },
  cookies: { keys: ['not used: nobody logs in here'] },
  scopes: ['read'],
  clientAuthMethods: ['client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth'],
  enabledJWA: { clientAuthSigningAlgValues: ALGORITHMS },
  discovery: { mtls_endpoint_aliases: { token_endpoint: `${alias}/token` } },
  ttl: { ClientCredentials: 600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      getCertificate: (context) => context.socket.getPeerX509Certificate(),
      certificateAuthorized: (context) => context.socket.authorized,
      certificateSubjectMatches(context, property, expected) {
        const certificate = context.socket.getPeerX509Certificate();
        if (property === 'tls_client_auth_subject_dn') return subject(certificate) === expected;
        return (certificate.subjectAltName ?? '').split(', ').includes(`URI:${expected}`);
      },
    },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => (
        { scope: 'read', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }
      ),
    },
  },
});
for (const web of [plain, asking]) web.on('request', provider.callback());

writeFileSync(join(folder, 'mtls-idp.json.new'), JSON.stringify({ issuer, alias }));
renameSync(join(folder, 'mtls-idp.json.new'), join(folder, 'mtls-idp.json'));
process.on('SIGTERM', () => process.exit(0));
