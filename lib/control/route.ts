/** What a route of the control socket is: its schemas, which check and describe it, and what it does. */
import type { Readable } from 'node:stream';
import type { Static, TSchema } from '@sinclair/typebox';
import type { ControlTarget } from './target.js';

/** Of the text format of Prometheus. */
export const METRICS_MEDIA_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** What an answer is: JSON of a schema, text of Prometheus, or a stream of bytes or frames that goes on while it is sent. */
export type Answer = TSchema | 'metrics' | 'bytes' | 'frames';

export interface Call<Query, Params, Body> {
  readonly target: ControlTarget;
  readonly query: Query;
  readonly params: Params;
  /** Undefined where the route takes a stream. */
  readonly body: Body;
  /** The request's own stream, for routes that take one. */
  readonly stream: Readable;
  /** Fires when the client has gone before its answer was whole. */
  readonly signal: AbortSignal;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly path: string;
  readonly summary: string;
  readonly query?: TSchema;
  readonly params?: TSchema;
  /** JSON of a schema; 'bytes' or 'frames' for a stream. Missing: the request has none. */
  readonly body?: Answer;
  /** The stream is read to its end before anything is done, and has to be there in a request's time. Default false. */
  readonly readsWhole?: boolean;
  readonly answer: Answer;
  handle(call: Call<never, never, never>): unknown;
}

type StaticOf<S> = S extends TSchema ? Static<S> : undefined;

/** A route whose handler has the types of its schemas. */
export function route<
  Query extends TSchema | undefined = undefined,
  Params extends TSchema | undefined = undefined,
  Body extends Answer | undefined = undefined,
>(
  definition: {
    readonly method: Route['method'];
    readonly path: string;
    readonly summary: string;
    readonly query?: Query;
    readonly params?: Params;
    readonly body?: Body;
    readonly readsWhole?: boolean;
    readonly answer: Answer;
  },
  handle: (call: Call<StaticOf<Query>, StaticOf<Params>, StaticOf<Body>>) => unknown,
): Route {
  return { ...(definition as Omit<Route, 'handle'>), handle: handle };
}
