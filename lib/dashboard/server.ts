/**
 * The dashboard's server: HTTP on loopback for the files of the page, and one WebSocket for each page that is open. Whoever asks passes the
 * gate first. What pages see and do is page-session.ts.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type RawData, type WebSocket } from 'ws';
import { VmmError } from '../base/errors.js';
import type { ListedMachine } from '../control/index.js';
import { Gate, freshToken, type GateAnswer } from './gate.js';
import { pageFiles, type PageFile } from './page-files.js';
import { PageSession, type SessionContext } from './page-session.js';
import { Polled } from './polled.js';
import { SnapshotShelf } from './snapshot-shelf.js';
import { StatsWatches } from './stats-watches.js';
import type { DashboardWorld } from './world.js';

export interface DashboardOptions {
  readonly world: DashboardWorld;
  /** 0 (the default): any that is free. */
  readonly port?: number | undefined;
  /** A folder of snapshots, absolute. */
  readonly snapshots?: string | undefined;
  /** Of the built page; for tests. */
  readonly pageFolder?: string;
}

export interface Dashboard {
  /** With the token: whoever has it may do all that the page can. */
  readonly url: string;
  /** Machines that are watched, each by one stream for each beat. */
  readonly watches: number;
  /** Ends all pages and gives up what is being done. Idempotent. */
  close(): Promise<void>;
}

const ADDRESS = '127.0.0.1';
/** Its machines' names can't be had by another user, so the list may be asked for often. */
const LIST_EVERY_MS = 1000;
/** The longest that a page sends: a piece of what was pasted. */
const MAX_MESSAGE_BYTES = 64 * 1024;
const SOCKET_PATH = '/socket';
/** For Prometheus, with the token as a parameter. */
const METRICS_PATH = '/metrics';

const REFUSALS: Readonly<Record<Exclude<GateAnswer, 'pass'>, string>> = {
  'foreign-host': 'This is not an address of the dashboard.',
  'foreign-origin': 'A page of another site may not ask the dashboard.',
  'no-token': 'Open the URL that vivarium dashboard has printed: the token in it is wanted.',
  'wrong-token': 'That is not the token of this dashboard: open the URL that it has printed.',
};

/**
 * @throws RangeError for what is no port; VmmError ERR_STATE when the port is taken, ERR_SYSTEM when it can't be had, ERR_SETUP when the
 *   page is not built
 */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { world, port: wanted = 0, snapshots, pageFolder } = options;
  if (!Number.isInteger(wanted) || wanted < 0 || wanted > 65535) throw new RangeError(`port: ${wanted} is no port`);
  const files = pageFiles(pageFolder);
  const server = createServer();
  const port = await listen(server, wanted);
  const token = freshToken();
  const gate = new Gate(token, port);
  const ending = new AbortController();
  const watches = new StatsWatches(world);
  const context: SessionContext = {
    world,
    watches,
    machines: new Polled<readonly ListedMachine[]>({
      clock: world.clock,
      everyMs: LIST_EVERY_MS,
      // Without descriptors, say: the next look may tell.
      ask: () => world.list().catch(() => undefined),
    }),
    shelf: snapshots === undefined ? undefined : new SnapshotShelf(snapshots, world),
    signal: ending.signal,
  };
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: false });

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    void answer(request, response, { gate, files, port, metrics: () => world.metrics() });
  });
  server.on('upgrade', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    stream.on('error', () => undefined);
    const verdict = check(gate, request);
    if (verdict !== 'pass') return refuseUpgrade(stream, 403);
    if (pathOf(request) !== SOCKET_PATH) return refuseUpgrade(stream, 404);
    sockets.handleUpgrade(request, stream, head, (socket) => serve(socket, context));
  });

  let closing: Promise<void> | undefined;
  return {
    url: `http://${ADDRESS}:${port}/?token=${token}`,
    get watches() {
      return watches.size;
    },
    close() {
      closing ??= (async () => {
        ending.abort();
        const closed = new Promise((resolve) => server.close(resolve));
        server.closeAllConnections();
        for (const socket of sockets.clients) socket.terminate();
        await closed;
      })();
      return closing;
    },
  };
}

async function listen(server: Server, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code, message }: NodeJS.ErrnoException) => {
      if (code === 'EADDRINUSE') {
        const cure = 'another --port, or none: any that is free';
        return reject(new VmmError('ERR_STATE', `port ${port} of ${ADDRESS} is taken by another program`, { cure }));
      }
      const cure = code === 'EACCES' ? 'a --port above 1023, or none: any that is free' : undefined;
      reject(
        new VmmError('ERR_SYSTEM', `no listening on port ${port}: ${message}`, cure === undefined ? {} : { cure }),
      );
    });
    server.listen({ port, host: ADDRESS }, resolve);
  });
  // accept(2) may be refused for a while (EMFILE): a browser tries again.
  server.on('error', () => undefined);
  return (server.address() as AddressInfo).port;
}

function serve(socket: WebSocket, context: SessionContext): void {
  const session = new PageSession(socket, context);
  socket.on('message', (data: RawData, isBinary: boolean) => {
    const bytes = data as Buffer;
    if (isBinary) session.takeBinary(bytes);
    else session.takeText(bytes.toString());
  });
  // Too long a message, or no WebSocket's: 'close' comes behind it.
  socket.on('error', () => undefined);
  socket.on('close', () => session.end());
}

interface Serving {
  readonly gate: Gate;
  readonly files: ReadonlyMap<string, PageFile>;
  readonly port: number;
  readonly metrics: () => Promise<string>;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { gate, files, port, metrics }: Serving,
): Promise<void> {
  for (const [name, value] of Object.entries(headersOf(port))) response.setHeader(name, value);
  const say = (status: number, text: string): void => {
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`);
  };
  // What the page is made of is the published package's; the page itself, and all that is not there, want the token.
  const file = files.get(pathOf(request));
  const verdict = check(gate, request, { needsToken: file === undefined || pathOf(request) === '/' });
  if (verdict !== 'pass') return say(403, REFUSALS[verdict]);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    return say(405, 'Files are read here, and nothing else.');
  }
  if (pathOf(request) === METRICS_PATH) {
    const text = await metrics().catch(() => undefined);
    if (text === undefined) return say(500, 'The machines can not be asked.');
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text);
    return;
  }
  if (file === undefined) return say(404, 'There is no such file.');
  try {
    const body = await readFile(file.path);
    response.writeHead(200, { 'content-type': file.mediaType, 'content-length': body.length });
    response.end(request.method === 'HEAD' ? undefined : body);
  } catch {
    say(500, 'The file can not be read: npm run build:ts makes it.');
  }
}

/** Scripts are files of ours alone. Styles may stand in the page: xterm writes its own there. */
function headersOf(port: number): Record<string, string> {
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    `connect-src 'self' ws://${ADDRESS}:${port} ws://localhost:${port}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return {
    'content-security-policy': policy.join('; '),
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
    'cache-control': 'no-store',
  };
}

function check(
  gate: Gate,
  { url = '/', headers: { host, origin } }: IncomingMessage,
  options: { needsToken?: boolean } = {},
): GateAnswer {
  return gate.check({ url, host, origin }, options);
}

function pathOf({ url = '/' }: IncomingMessage): string {
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}

function refuseUpgrade(stream: Duplex, status: 403 | 404): void {
  const text = status === 403 ? 'Forbidden' : 'Not Found';
  // Who keeps his own side open keeps no descriptor of ours.
  stream.once('finish', () => stream.destroy());
  stream.end(`HTTP/1.1 ${status} ${text}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}
