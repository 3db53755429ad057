import { createServer } from 'node:http';
import { connect as connectSocket, type AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startDashboard } from './server.js';
import { TestDashboard } from './testing.js';

let test: TestDashboard;
beforeEach(async () => {
  test = await new TestDashboard().start();
});
afterEach(() => test.done());

describe('the files', () => {
  it('come: the page to who has the token, what it is made of to each page of this address', async () => {
    const page = await test.get(`/${test.pass}`);
    expect(page).toMatchObject({ status: 200, text: '<!doctype html>page' });
    expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
    const script = await test.get('/main.js');
    expect(script).toMatchObject({ status: 200, text: '// page' });
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8');
    expect((await test.get('/main.js', { origin: 'http://evil.example' })).status).toBe(403);
    // Cookies would go to every port of this address.
    for (const { headers } of [page, script]) expect(headers['set-cookie']).toBeUndefined();
  });

  it('of the packages come along', async () => {
    for (const file of ['uplot.js', 'uplot.css', 'xterm.js', 'xterm.css', 'addon-fit.js']) {
      const { status, text } = await test.get(`/vendor/${file}`);
      expect([file, status]).toEqual([file, 200]);
      expect(text.length).toBeGreaterThan(500);
    }
  });

  it('allow scripts of their own alone, and no frame around them', async () => {
    const { headers } = await test.get(`/${test.pass}`);
    const policy = headers['content-security-policy'] as string;
    expect(policy).toContain("default-src 'none'; script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
  });

  it.each(['/../secret', '/%2e%2e/secret', '/vendor/../../secret', '//secret', '/page/main.js', '/constructor'])(
    'that %s leads to are none',
    async (path) => {
      expect((await test.get(`${path}${test.pass}`)).status).toBe(404);
    },
  );

  it('are only read', async () => {
    expect(await test.get(`/${test.pass}`, {}, 'POST')).toMatchObject({ status: 405 });
    expect(await test.get(`/${test.pass}`, {}, 'HEAD')).toMatchObject({ status: 200, text: '' });
  });
});

describe('the counters of all machines', () => {
  it('come as text of Prometheus to who has the token', async () => {
    const { status, text, headers } = await test.get(`/metrics${test.pass}`);
    expect([status, text]).toEqual([200, 'vivarium_viewers 1\n']);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect((await test.get('/metrics')).status).toBe(403);
    test.metrics = undefined;
    expect(await test.get(`/metrics${test.pass}`)).toMatchObject({ status: 500 });
  });
});

describe('who is refused', () => {
  const cases = (): [string, string, Record<string, string>][] => [
    ['no token', '', {}],
    ['a wrong token', '?token=no', {}],
    ['the token in a cookie', '', { cookie: `token=${test.token}` }],
    ['a foreign origin', test.pass, { origin: 'http://evil.example' }],
    ['a foreign host', test.pass, { host: 'evil.example' }],
    ['another port of this host', test.pass, { host: '127.0.0.1:1' }],
  ];

  it('gets no file', async () => {
    for (const [what, query, headers] of cases()) {
      const { status, text } = await test.get(`/${query}`, headers);
      expect([what, status]).toEqual([what, 403]);
      expect(text).not.toContain('page<');
    }
  });

  it('gets no WebSocket', async () => {
    for (const [what, query, headers] of cases()) {
      await expect(test.open(headers, `/socket${query}`), what).rejects.toThrow('403');
    }
    await expect(test.open({}, `/other${test.pass}`)).rejects.toThrow('404');
    await test.open({ origin: `http://127.0.0.1:${test.port}` });
  });

  it('and keeps its side open holds no descriptor, and not the end', async () => {
    const upgrade = 'GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
    const socket = connectSocket({ port: test.port, host: '127.0.0.1', allowHalfOpen: true });
    const text = await new Promise<string>((resolve, reject) => {
      let seen = '';
      socket.on('data', (chunk: Buffer) => (seen += chunk.toString()));
      socket.on('end', () => resolve(seen));
      socket.on('error', reject);
      socket.write(upgrade);
    });
    expect(text).toContain('403');
    await test.dashboard.close();
    socket.destroy();
  });
});

describe('the port', () => {
  it('is one of loopback', async () => {
    expect(test.dashboard.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]{43}$/);
  });

  it('that is taken is said, with a cure', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    try {
      await expect(
        startDashboard({ world: test.world, port, pageFolder: `${test.folder}/page` }),
      ).rejects.toMatchObject({
        code: 'ERR_STATE',
        message: `port ${port} of 127.0.0.1 is taken by another program`,
        cure: expect.stringContaining('--port') as string,
      });
    } finally {
      await new Promise((resolve) => other.close(resolve));
    }
  });

  it('is a number of a port', async () => {
    await expect(startDashboard({ world: test.world, port: 65536 })).rejects.toThrow(RangeError);
  });

  it('without a page that was built is not even taken', async () => {
    await expect(startDashboard({ world: test.world, pageFolder: `${test.folder}/none` })).rejects.toMatchObject({
      code: 'ERR_SETUP',
      cure: expect.stringContaining('build') as string,
    });
  });
});

it('ends all pages with itself', async () => {
  const page = await test.open();
  await test.dashboard.close();
  await page.closed;
  await expect(test.get('/')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});
