/**
 * Who may ask the dashboard anything: a request that names this address as its host, comes from no other site, and has the token
 * in its URL. Never as a cookie: browsers give these to whatever listens on any port of the same host, such as a guest behind a
 * forwarded one. It decides by headers alone; listening, routes and answers are not its business.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

export interface GateRequest {
  /** Of the request line: path and query. */
  readonly url: string;
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}

export type GateAnswer = 'pass' | 'foreign-host' | 'foreign-origin' | 'no-token' | 'wrong-token';

/** 256 bits as 43 characters that need no escaping in a URL or cookie. */
export function freshToken(): string {
  return randomBytes(32).toString('base64url');
}

export class Gate {
  readonly #token: string;
  readonly #hosts: readonly string[];

  constructor(token: string, port: number) {
    this.#token = token;
    const names = ['127.0.0.1', 'localhost'];
    // Browsers leave the port out where it is HTTP's own.
    this.#hosts = names.flatMap((name) => (port === 80 ? [name, `${name}:80`] : [`${name}:${port}`]));
  }

  /** The host comes first: a name that was bound to loopback from outside learns nothing of tokens. */
  check({ url, host, origin }: GateRequest, { needsToken = true }: { needsToken?: boolean } = {}): GateAnswer {
    if (host === undefined || !this.#hosts.includes(host)) return 'foreign-host';
    if (origin !== undefined && origin !== `http://${host}`) return 'foreign-origin';
    if (!needsToken) return 'pass';
    const query = url.includes('?') ? url.slice(url.indexOf('?') + 1) : '';
    const given = new URLSearchParams(query).get('token');
    if (given === null) return 'no-token';
    return isSame(given, this.#token) ? 'pass' : 'wrong-token';
  }
}

/** In a time that tells nothing of where they differ, nor of their lengths. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
