// A job worker for Camunda 8's REST API that holds no secret: tokend streams it each credential
// before the one before it expires, and is told what the API refuses.
//
// usage: node worker.mjs PROFILE [JOBS]    without JOBS: ten a second, until SIGTERM
//
// Needs @grpc/grpc-js and @grpc/proto-loader; PROTO is the folder `proto` of tokend.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const [profile, jobs] = process.argv.slice(2);
const { TOKEND_SOCKET = '/run/tokend/tokend.sock', PROTO = 'proto', ERRAND = 'examples/errand.bpmn' } = process.env;
const NAME = 'errand-node';
const definition = loader.loadSync('tokend/v1/credential.proto', { includeDirs: [PROTO], keepCase: true, oneofs: true });
const { CredentialService } = grpc.loadPackageDefinition(definition).tokend.v1;
const tokend = new CredentialService(`unix:${TOKEND_SOCKET}`, grpc.credentials.createInsecure(), {
  'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1000,
});
// What is told at the end. `failed`: for want of a credential; `repeated`: because the API was not
// there.
const count = { jobs: 0, calls: 0, rejected: 0, failed: 0, repeated: 0, credential_ms: 0, gap_ms: 0 };

// --- The credential ----------------------------------------------------------------------------------------------------

let current; // the latest
let arrived = () => {};
let why = 'tokend has said nothing yet';

function watch() {
  const stream = tokend.watchToken({ profile }, new grpc.Metadata({ waitForReady: true }));
  stream.on('data', ({ credential, unavailable }) => {
    if (credential) {
      current = credential;
      arrived();
    } else {
      why = unavailable.message;
    }
  });
  stream.on('error', (error) => { why = error.details; });
  // However it ends, and with a restart of tokend it does, there is another.
  stream.on('status', () => { setTimeout(watch, 100).unref(); });
}

const isUsable = (credential) => credential && !(credential.expires_at && credential.expires_at.seconds * 1000 <= Date.now());

/** The credential, if need be as soon as there is one that `suits`. */
async function credential(suits = isUsable) {
  const late = performance.now() + 10_000;
  while (!suits(current)) {
    const left = late - performance.now();
    if (left <= 0) throw new Error(`${profile}: no credential within ten seconds: ${why}`);
    await Promise.race([new Promise((done) => { arrived = done; }), sleep(Math.min(left, 250))]);
  }
  return current;
}

/** Another one than the one that was refused, as soon as there is one. */
function credentialAfter(refused) {
  const isAnother = (one) => isUsable(one) && one.fingerprint !== refused.fingerprint;
  const report = () => {
    if (isAnother(current)) return;
    const options = { deadline: Date.now() + 10_000 };
    tokend.reportRejected({ profile, fingerprint: refused.fingerprint }, options, (error, answer) => {
      const { seconds = 0, nanos = 0 } = answer?.retry_after ?? {};
      if (!answer?.replaced) setTimeout(report, Math.max(100, seconds * 1000 + nanos / 1e6)).unref();
    });
  };
  report();
  return credential(isAnother);
}

// --- The API -----------------------------------------------------------------------------------------------------------

class NoCredential extends Error {}

/** The status and the body, once the API has one to give. */
async function call(method, path, body) {
  const isForm = body instanceof FormData;
  const send = (given) => fetch(given.target + path, {
    method,
    body: isForm ? body : body && JSON.stringify(body),
    headers: {
      ...(body && !isForm && { 'content-type': 'application/json' }),
      ...(given.authorization && { authorization: given.authorization }),
    },
    signal: AbortSignal.timeout(15_000),
  });
  let waited = 0;
  const wait = async (promise) => {
    const asked = performance.now();
    try {
      return await promise;
    } catch (error) {
      throw new NoCredential(error.message);
    } finally {
      waited += performance.now() - asked;
      count.credential_ms = Math.max(count.credential_ms, Math.round(waited));
    }
  };
  for (;; waited = 0, await sleep(200)) {
    count.calls += 1;
    try {
      const given = await wait(credential());
      let answer = await send(given);
      if (answer.status === 401) {
        count.rejected += 1;
        answer = await send(await wait(credentialAfter(given)));
      }
      if (answer.status === 401) throw new NoCredential(`${method} ${path}: ${answer.status}`);
      const text = await answer.text();
      if (answer.status < 500 && answer.status !== 429) return { status: answer.status, text };
      count.repeated += 1;
    } catch (error) {
      if (error instanceof NoCredential) {
        count.failed += 1;
        console.error(`no credential: ${error.message}`);
      } else {
        count.repeated += 1;
      }
    }
  }
}

async function expect(statuses, method, path, body) {
  const { status, text } = await call(method, path, body);
  if (!statuses.includes(status)) throw new Error(`${method} ${path}: ${status}: ${text}`);
  return text && JSON.parse(text);
}

function deploy() {
  const form = new FormData();
  form.append('resources', new Blob([readFileSync(ERRAND, 'utf8').replaceAll('errand', NAME)]), `${NAME}.bpmn`);
  return expect([200], 'POST', '/v2/deployments', form);
}

/** Completes the jobs that are there, or come within five seconds. */
async function work(started) {
  const wanted = { type: NAME, worker: NAME, maxJobsToActivate: 10, timeout: 10_000, requestTimeout: 5_000 };
  for (const job of (await expect([200], 'POST', '/v2/jobs/activation', wanted)).jobs) {
    // 404: it was completed by a call whose answer was lost.
    await expect([204, 404], 'POST', `/v2/jobs/${job.key}/completion`, { variables: { done: true } });
    started.delete(job.processInstanceKey);
    count.jobs += 1;
  }
}

let ended = false;
process.on('SIGTERM', () => { ended = true; });
watch();
await expect([200], 'GET', '/v2/topology');
await deploy();
const started = new Set();
let last = performance.now();
let next = last;
while (!ended && !(jobs && count.jobs >= jobs)) {
  if (!jobs) {
    next = Math.max(next + 100, performance.now() - 1000);
    await sleep(Math.max(0, next - performance.now()));
  }
  started.add((await expect([200], 'POST', '/v2/process-instances', { processDefinitionId: NAME })).processInstanceKey);
  await work(started);
  count.gap_ms = Math.max(count.gap_ms, Math.round(performance.now() - last));
  last = performance.now();
}
// Nothing that was started stays undone.
while (started.size) await work(started);
console.log(JSON.stringify(count));
process.exit(0);
