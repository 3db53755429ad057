/**
 * Who may ask the dashboard anything: a request that names this address as its host, comes from no other site, and has the token.
 * It decides by headers alone; listening, routes and answers are not its business.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

export interface GateRequest {
  /** Of the request line: path and query. */
  readonly url: string;
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
  readonly cookie?: string | undefined;
}

export type GateAnswer = 'pass' | 'foreign-host' | 'foreign-origin' | 'no-token' | 'wrong-token';

/** 256 bits as 43 characters that need no escaping in a URL or cookie. */
export function freshToken(): string {
  return randomBytes(32).toString('base64url');
}

export class Gate {
  /** Cookies know no ports: each dashboard of this machine has its own. */
  readonly cookieName: string;
  readonly #token: string;
  readonly #hosts: readonly string[];

  constructor(token: string, port: number) {
    this.#token = token;
    this.#hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
    this.cookieName = `vivarium-${port}`;
  }

  /** The host comes first: a name that was bound to loopback from outside learns nothing of tokens. */
  check({ url, host, origin, cookie = '' }: GateRequest): GateAnswer {
    if (host === undefined || !this.#hosts.includes(host)) return 'foreign-host';
    if (origin !== undefined && origin !== `http://${host}`) return 'foreign-origin';
    const query = url.includes('?') ? url.slice(url.indexOf('?') + 1) : '';
    const given = new URLSearchParams(query).get('token') ?? this.#cookieOf(cookie);
    if (given === undefined) return 'no-token';
    return isSame(given, this.#token) ? 'pass' : 'wrong-token';
  }

  #cookieOf(header: string): string | undefined {
    const start = `${this.cookieName}=`;
    const pair = header.split(';').find((text) => text.trim().startsWith(start));
    return pair?.trim().slice(start.length);
  }
}

/** In a time that tells nothing of where they differ, nor of their lengths. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
