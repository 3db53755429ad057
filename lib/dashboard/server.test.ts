import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startDashboard } from './server.js';
import { TestDashboard } from './testing.js';

let test: TestDashboard;
beforeEach(async () => {
  test = await new TestDashboard().start();
});
afterEach(() => test.done());

describe('the files', () => {
  it('come to who has the token, which becomes a cookie', async () => {
    const page = await test.get(`/?token=${test.token}`);
    expect(page).toMatchObject({ status: 200, text: '<!doctype html>page' });
    expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
    expect(page.headers['set-cookie']).toEqual([`${test.cookie}; Path=/; HttpOnly; SameSite=Strict`]);
    const script = await test.get('/main.js', { cookie: test.cookie });
    expect(script).toMatchObject({ status: 200, text: '// page' });
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8');
    expect(script.headers['set-cookie']).toBeUndefined();
  });

  it('of the packages come along', async () => {
    for (const file of ['uplot.js', 'uplot.css', 'xterm.js', 'xterm.css', 'addon-fit.js']) {
      const { status, text } = await test.get(`/vendor/${file}`, { cookie: test.cookie });
      expect([file, status]).toEqual([file, 200]);
      expect(text.length).toBeGreaterThan(500);
    }
  });

  it('allow scripts of their own alone, and no frame around them', async () => {
    const { headers } = await test.get('/', { cookie: test.cookie });
    const policy = headers['content-security-policy'] as string;
    expect(policy).toContain("default-src 'none'; script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
  });

  it.each(['/../secret', '/%2e%2e/secret', '/vendor/../../secret', '//secret', '/page/main.js', '/constructor'])(
    'that %s leads to are none',
    async (path) => {
      expect((await test.get(path, { cookie: test.cookie })).status).toBe(404);
    },
  );

  it('are only read', async () => {
    expect(await test.get('/', { cookie: test.cookie }, 'POST')).toMatchObject({ status: 405 });
    expect(await test.get('/', { cookie: test.cookie }, 'HEAD')).toMatchObject({ status: 200, text: '' });
  });
});

describe('the counters of all machines', () => {
  it('come as text of Prometheus to who has the token', async () => {
    const { status, text, headers } = await test.get(`/metrics?token=${test.token}`);
    expect([status, text]).toEqual([200, 'vivarium_viewers 1\n']);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect((await test.get('/metrics')).status).toBe(403);
    test.metrics = undefined;
    expect(await test.get('/metrics', { cookie: test.cookie })).toMatchObject({ status: 500 });
  });
});

describe('who is refused', () => {
  const cases = (): [string, string, Record<string, string>][] => [
    ['no token', '', {}],
    ['a wrong token', '?token=no', {}],
    ['a wrong cookie', '', { cookie: `vivarium-${test.port}=no` }],
    ['a foreign origin', '', { cookie: test.cookie, origin: 'http://evil.example' }],
    ['a foreign host', '', { cookie: test.cookie, host: 'evil.example' }],
    ['another port of this host', '', { cookie: test.cookie, host: '127.0.0.1:1' }],
  ];

  it('gets no file', async () => {
    for (const [what, query, headers] of cases()) {
      const { status, text, headers: answered } = await test.get(`/${query}`, headers);
      expect([what, status]).toEqual([what, 403]);
      expect(text).not.toContain('page<');
      expect(answered['set-cookie']).toBeUndefined();
    }
  });

  it('gets no WebSocket', async () => {
    for (const [what, query, headers] of cases()) {
      await expect(test.open(headers, `/socket${query}`), what).rejects.toThrow('403');
    }
    await expect(test.open({ cookie: test.cookie }, '/other')).rejects.toThrow('404');
    await test.open({ cookie: test.cookie, origin: `http://127.0.0.1:${test.port}` });
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
