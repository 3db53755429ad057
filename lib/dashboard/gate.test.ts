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
  ['the token in the cookie', { url: '/', host, cookie: `a=b; vivarium-8123=${token}` }, 'pass'],
  ['its own origin', { url: `/?token=${token}`, host: 'localhost:8123', origin: 'http://localhost:8123' }, 'pass'],
  ['no token', { url: '/', host }, 'no-token'],
  ['the cookie of another port', { url: '/', host, cookie: `vivarium-8124=${token}` }, 'no-token'],
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
