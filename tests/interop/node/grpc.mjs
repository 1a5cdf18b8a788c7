// @grpc/grpc-js with definitions read from proto/ at run time, and `jose` to verify what tokend
// handed out.

import assert from 'node:assert/strict';
import { request } from 'node:https';
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { createLocalJWKSet, jwtVerify } from 'jose';

const { TOKEND_SOCKET, WORK, PROTO, IDP_HTTP, IDP_HTTPS } = process.env;

let failed = 0;
async function check(name, body) {
  try {
    await body();
    console.log(`ok grpc-js: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL grpc-js: ${name}: ${String(error).split('\n').join(' ')}`);
  }
}

const definition = protoLoader.loadSync('tokend/v1/credential.proto', {
  includeDirs: [PROTO], keepCase: true, longs: Number, oneofs: true, defaults: true,
});
const { CredentialService } = grpc.loadPackageDefinition(definition).tokend.v1;
const client = new CredentialService(`unix:${TOKEND_SOCKET}`, grpc.credentials.createInsecure());

const call = (method, message, seconds = 10) => new Promise((done, fail) => {
  client[method](message, { deadline: Date.now() + seconds * 1000 }, (error, answer) => {
    if (error) fail(error);
    else done(answer);
  });
});
const getToken = (profile, more = {}, seconds = 10) => call('GetToken', { profile, ...more }, seconds);
const refusal = (promise) => promise.then(() => assert.fail('was answered'), (error) => error);

// fetch() cannot be told whom to trust, so https goes through node:https.
async function json(url) {
  if (url.startsWith('http:')) return (await fetch(url)).json();
  return new Promise((done, fail) => {
    request(url, { ca: readFileSync(`${WORK}/ca.pem`) }, async (answer) => {
      let text = '';
      for await (const part of answer) text += part;
      done(JSON.parse(text));
    }).on('error', fail).end();
  });
}

async function verify(token, issuer, audience) {
  const metadata = await json(`${issuer}/.well-known/openid-configuration`);
  const keys = createLocalJWKSet(await json(metadata.jwks_uri));
  return (await jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt' })).payload;
}

const signed = {
  basic: [IDP_HTTP, 'urn:api:orders'],
  post: [IDP_HTTP, 'urn:api:billing'],
  signed: [IDP_HTTP, 'urn:api:billing'],
  colon: [IDP_HTTP, 'urn:api:orders'],
  'private-ca': [IDP_HTTPS, 'urn:api:orders'],
};
for (const [profile, [issuer, audience]] of Object.entries(signed)) {
  await check(`${profile}: the token verifies against the provider's keys`, async () => {
    const { credential, expires_in } = await getToken(profile);
    const claims = await verify(credential.token, issuer, audience);
    assert.equal(credential.authorization, `Bearer ${credential.token}`);
    assert.equal(credential.token_type, 'Bearer');
    assert.deepEqual(credential.scopes, claims.scope.split(' '));
    assert.ok(credential.expires_at.seconds <= claims.exp);
    assert.ok(expires_in.seconds > 0 && expires_in.seconds <= 600);
  });
}
await check('none has no header and does not expire', async () => {
  const { credential, expires_in } = await getToken('open');
  assert.deepEqual([credential.authorization, credential.expires_at, expires_in], ['', null, null]);
});
await check('ListProfiles', async () => {
  const names = (await call('ListProfiles', {})).profiles.map((profile) => profile.name);
  assert.ok(names.includes('basic') && !names.includes('hidden'), names.join());
});
await check('an unknown profile: NOT_FOUND with details', async () => {
  const error = await refusal(getToken('nowhere'));
  assert.equal(error.code, grpc.status.NOT_FOUND);
  assert.match(String(error.metadata.get('grpc-status-details-bin')[0]), /PROFILE_NOT_FOUND/);
});
await check('a provider that never answers: DEADLINE_EXCEEDED', async () => {
  const error = await refusal(getToken('stuck', {}, 0.5));
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
});
await check('1 000 calls at the same time', async () => {
  const answers = await Promise.all(Array.from({ length: 1000 }, () => getToken('basic', {}, 60)));
  assert.equal(new Set(answers.map((answer) => answer.credential.token)).size, 1);
});
await check('WatchToken: a credential, and its replacement in time', async () => {
  const stream = client.WatchToken({ profile: 'brief' }, { deadline: Date.now() + 30_000 });
  const seen = [];
  stream.on('error', () => {}); // of cancel()
  for await (const { credential } of stream) {
    seen.push(credential);
    if (seen.length === 2) break;
  }
  stream.cancel();
  assert.ok(seen[1].generation > seen[0].generation && seen[1].token !== seen[0].token);
  await verify(seen[1].token, IDP_HTTP, 'urn:api:brief');
});
client.close();
process.exitCode = failed ? 1 : 0;
