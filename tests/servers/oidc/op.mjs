// oidc-provider with short access tokens, rotation and reuse detection, counting what happens to refresh tokens.
// Listens on a free port of 127.0.0.1, says so in one line of JSON, and ends with its standard input.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider, { errors } from 'oidc-provider';

const REDIRECT_URI = 'http://127.0.0.1:9/callback'; // nobody is there: the login reads the code from the redirect
const SCOPE = 'openid offline_access';
const DAY = 86400;
// The resources that there are (RFC 8707): a token for one of them is of no use at the other, or at /me.
const RESOURCES = ['https://mail.example.com', 'https://files.example.com'];

const zero = () => ({ redeemed: 0, refused: 0, grants_revoked: 0, at_once: 0, served: 0, rejected: 0 });
let counts = zero();
let accessLifetime = DAY;

// The provider's own memory adapter forgets the least recently used of 1000 entries, idle refresh tokens among them.
class Memory {
  entries = new Map();

  async find(id) { return this.entries.get(id); }
  async findByUid(uid) { return [...this.entries.values()].find((entry) => entry.uid === uid); }
  async upsert(id, entry) { this.entries.set(id, entry); }
  async destroy(id) { this.entries.delete(id); }
  async consume(id) { this.entries.get(id).consumed = Math.floor(Date.now() / 1000); }
  async revokeByGrantId(grantId) {
    for (const [id, entry] of this.entries) if (entry.grantId === grantId) this.entries.delete(id);
  }
}

const server = createServer();
await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
server.keepAliveTimeout = 120_000; // a connection that idles while a token expires is still there afterwards
const issuer = `http://127.0.0.1:${server.address().port}`;

const client = {
  redirect_uris: [REDIRECT_URI],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  scope: SCOPE,
};
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const provider = new Provider(issuer, {
  adapter: Memory,
  clients: [
    { ...client, client_id: 'public', token_endpoint_auth_method: 'none' },
    { ...client, client_id: 'conf', client_secret: 'secret', token_endpoint_auth_method: 'client_secret_basic' },
  ],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'signing', use: 'sig', alg: 'RS256' }] },
  cookies: { keys: ['cookies'] },
  clockTolerance: 0, // else an expired access token is taken for another 15 s
  pkce: { required: () => true },
  rotateRefreshToken: true,
  scopes: SCOPE.split(' '),
  ttl: {
    AccessToken: () => accessLifetime,
    AuthorizationCode: 60,
    Grant: DAY,
    IdToken: DAY,
    Interaction: 60,
    RefreshToken: DAY,
    Session: DAY,
  },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  loadExistingGrant: async ({ oidc }) => {
    const grant = new provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope(SCOPE);
    for (const resource of RESOURCES) grant.addResourceScope(resource, 'read');
    await grant.save();
    return grant;
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => false,
      getResourceServerInfo: (_, resource) => {
        if (!RESOURCES.includes(resource)) throw new errors.InvalidTarget();
        return { scope: 'read', audience: resource, accessTokenTTL: accessLifetime, accessTokenFormat: 'opaque' };
      },
    },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
  },
});

const isRefresh = (ctx) => ctx.oidc?.params?.grant_type === 'refresh_token';
provider.on('grant.success', (ctx) => { if (isRefresh(ctx)) counts.redeemed += 1; });
provider.on('grant.error', (ctx) => { if (isRefresh(ctx)) counts.refused += 1; });
provider.on('grant.revoked', () => { counts.grants_revoked += 1; });

// What the tests ask for, beside the provider's own routes.
const routes = {
  'GET /test/counts': (ctx) => { ctx.body = counts; },
  'POST /test/counts': (ctx) => { counts = zero(); ctx.body = counts; },
  'POST /test/access-lifetime': (ctx) => { accessLifetime = Number(ctx.query.seconds); ctx.body = {}; },
  // Only this access token ends. RFC 7009 would do for the whole grant.
  'POST /test/end': async (ctx) => {
    const token = await provider.AccessToken.find(ctx.get('authorization').replace('Bearer ', ''));
    await token.destroy();
    ctx.body = {};
  },
};

let refreshing = 0;
provider.use(async (ctx, next) => {
  const route = routes[`${ctx.method} ${ctx.path}`];
  if (route) return route(ctx);
  if (ctx.path.startsWith('/interaction/')) { // the login page: whoever comes is who the hint says, and agrees
    const { params } = await provider.interactionDetails(ctx.req, ctx.res);
    const result = { login: { accountId: params.login_hint }, consent: {} };
    return ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
  }
  if (ctx.path === '/token') {
    refreshing += 1;
    counts.at_once = Math.max(counts.at_once, refreshing);
  }
  try {
    return await next();
  } finally {
    if (ctx.path === '/token') refreshing -= 1;
    if (ctx.path === '/me') counts[ctx.status === 200 ? 'served' : 'rejected'] += 1;
  }
});

server.on('request', provider.callback());
for (const event of ['data', 'end']) process.stdin.on(event, () => process.exit(0));
console.log(JSON.stringify({ issuer, redirect_uri: REDIRECT_URI, pid: process.pid }));
