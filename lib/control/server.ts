/**
 * The control socket's server: HTTP over any duplex streams, wherever they come from (a UNIX socket, or a channel of the embedded
 * host). It checks requests by their schemas, hands them to their routes and turns errors into answers. It listens to nothing by itself.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline, Readable, type Duplex } from 'node:stream';
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { VmmError } from '../base/errors.js';
import { validator } from './check.js';
import { ARGUMENT_CODE, failureOf, httpStatusOf, type Failure } from './failures.js';
import { openApi } from './openapi.js';
import { drained } from './output-streams.js';
import { RequestGuard } from './request-guard.js';
import { METRICS_MEDIA_TYPE, type Call, type Route } from './route.js';
import { ROUTES } from './routes.js';
import { FRAMES_MEDIA_TYPE } from './stream-frames.js';
import type { ControlTarget } from './target.js';

export interface ControlServer {
  /** A new connection. */
  accept(stream: Duplex): void;
  /** Lets the answers out that are under way, a short time, and cuts what is left. Idempotent. */
  close(): Promise<void>;
}

export interface ControlServerOptions {
  /** How long a request may take to be there in whole. Default 30 000. */
  readonly requestMs?: number;
  readonly version?: string;
}

/** A body of JSON is at most so long: a snapshot's folder and its parent are the longest that there is. */
const MAX_JSON_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 16 * 1024;
const REQUEST_MS = 30_000;
/** Content Too Large (RFC 9110, 15.5.14). */
const TOO_LONG = 413;
/** Answers under way have so long to go out when the machine has ended. */
const CLOSING_NS = 2_000_000_000n;

export async function makeControlServer(
  target: ControlTarget,
  { requestMs = REQUEST_MS, version = '0' }: ControlServerOptions = {},
): Promise<ControlServer> {
  const guard = new RequestGuard(target.clock, requestMs);
  const app = fastify({
    bodyLimit: MAX_JSON_BYTES,
    http: { maxHeaderSize: MAX_HEADER_BYTES },
    exposeHeadRoutes: false,
  });
  app.setValidatorCompiler(validator);
  app.removeContentTypeParser('text/plain');
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  app.setErrorHandler(async (error, request, reply) => {
    // Who still sends does not hear an answer. Streams without a length may go on until they have one.
    const isTooLong = (error as { statusCode?: number }).statusCode === TOO_LONG;
    if (isTooLong || request.headers['content-length'] !== undefined) {
      guard.expect(request.raw.socket);
      await drained(request.raw);
    }
    return answerFailure(reply, error);
  });
  app.setNotFoundHandler((request, reply) => {
    const message = `there is no ${request.method} ${request.url}; GET /v1/openapi.json tells what there is`;
    void reply.code(404).send({ error: { code: ARGUMENT_CODE, message } satisfies Failure });
  });
  app.addHook('onResponse', (request, _reply, done) => {
    guard.expect(request.raw.socket);
    done();
  });
  for (const route of ROUTES) addRoute(app, route, target, guard);
  const description = openApi(ROUTES, version);
  app.get('/v1/openapi.json', () => description);
  await app.ready();

  const connections = new Set<Duplex>();
  const underWay = new Set<ServerResponse>();
  app.server.on('request', (_request: IncomingMessage, response: ServerResponse) => {
    underWay.add(response);
    response.once('close', () => underWay.delete(response));
  });
  let closing: Promise<void> | undefined;
  return {
    accept(stream) {
      if (closing !== undefined) return void stream.destroy();
      connections.add(stream);
      stream.on('error', () => undefined);
      stream.once('close', () => {
        connections.delete(stream);
        guard.arrived(stream);
      });
      guard.expect(stream);
      app.server.emit('connection', stream);
    },
    close() {
      closing ??= (async () => {
        await settled(underWay, target);
        for (const stream of connections) stream.destroy();
        await app.close();
      })();
      return closing;
    },
  };
}

/** Every answer has gone out, or the time is over. */
async function settled(underWay: ReadonlySet<ServerResponse>, { clock }: ControlTarget): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = clock.setTimer(CLOSING_NS, resolve);
    void Promise.all([...underWay].map((response) => new Promise((done) => response.once('close', done)))).then(() => {
      timer.cancel();
      resolve();
    });
  });
}

function addRoute(app: FastifyInstance, route: Route, target: ControlTarget, guard: RequestGuard): void {
  const { method, path, query, params, body, readsWhole = false } = route;
  const takesJson = typeof body === 'object';
  app.route({
    method,
    url: path,
    schema: { ...(query && { querystring: query }), ...(params && { params }), ...(takesJson && { body }) },
    preValidation: (request, _reply, done) => {
      if (takesJson && (request.body === undefined || request.body === null)) request.body = {};
      if (takesJson && request.body instanceof Readable) {
        return done(new TypeError(`${method} ${path} takes JSON: content-type: application/json is wanted`));
      }
      done();
    },
    // JSON is there in whole by now.
    preHandler: (request, _reply, done) => {
      const { raw } = request;
      if (readsWhole) raw.once('end', () => guard.arrived(raw.socket));
      else guard.arrived(raw.socket);
      done();
    },
    handler: async (request, reply) => {
      const gone = new AbortController();
      reply.raw.once('close', () => {
        if (!reply.raw.writableFinished) gone.abort();
      });
      const answer = await route.handle(callOf(request, target, gone.signal));
      if (answer instanceof Readable) return sendStream(reply, answer, route.answer === 'frames');
      if (route.answer === 'metrics') void reply.type(METRICS_MEDIA_TYPE);
      return reply.send(answer);
    },
  });
}

/** By hand, so that the client has its answer before there is a first byte of it. Its end is the connection's. */
function sendStream(reply: FastifyReply, answer: Readable, isFrames: boolean): void {
  void reply.hijack();
  const type = isFrames ? FRAMES_MEDIA_TYPE : 'application/octet-stream';
  reply.raw.writeHead(200, { 'content-type': type, connection: 'close' });
  reply.raw.flushHeaders();
  // A client that goes away is no news here.
  pipeline(answer, reply.raw, () => undefined);
}

function callOf(request: FastifyRequest, target: ControlTarget, signal: AbortSignal): Call<never, never, never> {
  const { query, params, body, raw } = request;
  const call: Call<unknown, unknown, unknown> = { target, query, params, body, stream: raw, signal };
  return call as Call<never, never, never>;
}

function answerFailure(reply: FastifyReply, error: unknown): unknown {
  const { validation, statusCode, message } = error as { validation?: unknown; statusCode?: number; message: string };
  if (error instanceof VmmError || (statusCode === undefined && validation === undefined)) {
    const failure = failureOf(error);
    return reply.code(httpStatusOf(failure)).send({ error: failure });
  }
  // Fastify's own: a body that is too long, no JSON, or not of its schema.
  return reply.code(statusCode ?? 400).send({ error: { code: ARGUMENT_CODE, message } satisfies Failure });
}
