// The identity provider of these tests: the certified OpenID provider `oidc-provider`, twice (http,
// and https with a certificate that no system trusts), and an endpoint that accepts connections and
// never answers.
//
// usage: node idp.mjs FOLDER FOLDER holds tls.pem, tls.key (the server's certificate) and
// client.pub (the public key of the client `signed`). When it listens, the addresses are in
// FOLDER/idp.json. SIGTERM ends it.

import { createPublicKey } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createServer as createTcp } from 'node:net';
import { join } from 'node:path';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';

const folder = process.argv[2];
const file = (name) => readFileSync(join(folder, name), 'utf8');

// Every printable sign of ASCII, which is all that RFC 6749 (appendix A.2) allows: inside Basic
// they must be form-urlencoded (section 2.3.1), and this provider refuses a client that forgets it.
const NASTY = file('nasty.secret').trimEnd();

const machine = {
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
};
const clients = [
  { client_id: 'basic', client_secret: NASTY, token_endpoint_auth_method: 'client_secret_basic' },
  { client_id: 'post', client_secret: NASTY, token_endpoint_auth_method: 'client_secret_post' },
  { client_id: 'rest:api/v2', client_secret: 'short', token_endpoint_auth_method: 'client_secret_basic' },
  {
    client_id: 'signed',
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [{ ...await exportJWK(createPublicKey(file('client.pub'))), alg: 'ES256', use: 'sig' }] },
  },
].map((client) => ({ ...machine, ...client }));

// The APIs that tokens are for. Without one of them in `resource`, the token is opaque.
const apis = {
  'urn:api:orders': { scope: 'read write', accessTokenTTL: 600, alg: 'RS256' },
  'urn:api:billing': { scope: 'read', accessTokenTTL: 600, alg: 'ES256' },
  'urn:api:brief': { scope: 'read', accessTokenTTL: 8, alg: 'ES256' },
};

const grants = {};

async function provider(issuer) {
  const keys = [];
  for (const alg of ['RS256', 'ES256']) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    keys.push({ ...await exportJWK(privateKey), alg, use: 'sig', kid: `${alg}-${new URL(issuer).protocol}` });
  }
  const idp = new Provider(issuer, {
    clients,
    jwks: { keys },
    cookies: { keys: ['not used: nobody logs in here'] },
    scopes: ['read', 'write'],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    ttl: { ClientCredentials: (_context, token) => token.resourceServer?.accessTokenTTL ?? 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(_context, resource) {
          if (!Object.hasOwn(apis, resource)) throw new errors.InvalidTarget();
          const { scope, accessTokenTTL, alg } = apis[resource];
          return { scope, accessTokenTTL, audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
        },
      },
    },
  });
  idp.on('grant.success', (context) => {
    const id = context.oidc.client.clientId;
    grants[id] = (grants[id] ?? 0) + 1;
  });
  return idp.callback();
}

const listen = (server) => new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port)));

const web = createHttp();
const tls = createHttps({ cert: file('tls.pem'), key: file('tls.key') });
const silent = createTcp((socket) => socket.on('error', () => {}));

const http = `http://127.0.0.1:${await listen(web)}`;
const https = `https://localhost:${await listen(tls)}`;
const [plain, secure] = [await provider(http), await provider(https)];
web.on('request', (request, response) => {
  // Not part of OAuth, for the tests alone: who got how many tokens, and an API that says what it
  // was sent.
  if (request.url === '/grants') response.end(JSON.stringify(grants));
  else if (request.url === '/echo') response.end(request.headers.authorization ?? '');
  else plain(request, response);
});
tls.on('request', secure);
const stuck = `http://127.0.0.1:${await listen(silent)}`;

writeFileSync(join(folder, 'idp.json.new'), JSON.stringify({ http, https, stuck }));
renameSync(join(folder, 'idp.json.new'), join(folder, 'idp.json'));
process.on('SIGTERM', () => process.exit(0));
