import { expect, it } from 'vitest';
import { freshToken, Gate } from './gate.js';

const token = freshToken();
const gate = new Gate(token, 8123);
const host = '127.0.0.1:8123';

it('makes a token that nobody guesses', () => {
  expect(token).toMatch(/^[\w-]{43}$/);
  expect(freshToken()).not.toBe(token);
});

it.each([
  ['the token in the query', { url: `/?token=${token}`, host }, 'pass'],
  ['its own origin', { url: `/?token=${token}`, host: 'localhost:8123', origin: 'http://localhost:8123' }, 'pass'],
  ['no token', { url: '/', host }, 'no-token'],
  ['a wrong token', { url: `/?token=${token}x`, host }, 'wrong-token'],
  ['an empty token', { url: '/?token=', host }, 'wrong-token'],
  ['a foreign host', { url: `/?token=${token}`, host: 'evil.example:8123' }, 'foreign-host'],
  ['another port', { url: `/?token=${token}`, host: '127.0.0.1:80' }, 'foreign-host'],
  ['no host', { url: `/?token=${token}` }, 'foreign-host'],
  ['a foreign origin', { url: `/?token=${token}`, host, origin: 'http://evil.example' }, 'foreign-origin'],
  ['a sandboxed page', { url: `/?token=${token}`, host, origin: 'null' }, 'foreign-origin'],
] as const)('judges %s', (_what, request, answer) => {
  expect(gate.check(request)).toBe(answer);
});

it('knows that browsers leave out the port of HTTP itself', () => {
  const http = new Gate(token, 80);
  const url = `/?token=${token}`;
  expect(http.check({ url, host: '127.0.0.1', origin: 'http://127.0.0.1' })).toBe('pass');
  expect(http.check({ url, host: 'localhost:80' })).toBe('pass');
  expect(gate.check({ url, host: '127.0.0.1' })).toBe('foreign-host');
});

it('lets pass without a token what needs none, but from nowhere else', () => {
  const free = { needsToken: false };
  expect(gate.check({ url: '/main.js', host }, free)).toBe('pass');
  expect(gate.check({ url: '/main.js', host: 'evil.example' }, free)).toBe('foreign-host');
  expect(gate.check({ url: '/main.js', host, origin: 'http://evil.example' }, free)).toBe('foreign-origin');
});
