/** Values held against their schemas, with words that name the member. Fastify asks these for what it hands to routes. */
import type { Static, TSchema } from '@sinclair/typebox';
import { Value, type ValueError } from '@sinclair/typebox/value';

/** @throws TypeError that names the first member that is wrong */
export function checked<S extends TSchema>(schema: S, value: unknown, what: string): Static<S> {
  const wrong = mistakeIn(schema, value, what);
  if (wrong !== undefined) throw wrong;
  return value;
}

/** What is wrong with a value, undefined when nothing is. */
export function mistakeIn(schema: TSchema, value: unknown, what: string): TypeError | undefined {
  const first = Value.Errors(schema, value).First();
  return first === undefined
    ? undefined
    : new TypeError(`${what}${first.path.replaceAll('/', '.')}: ${wordsOf(first)}`);
}

/** For fastify: a query and the parts of a path are texts, and become what they are to be; a body has types of its own. */
export function validator({ schema, httpPart = '' }: { schema: unknown; httpPart?: string | undefined }) {
  return (data: unknown): { value: unknown } | { error: Error } => {
    const known = schema as TSchema;
    const value = httpPart === 'body' ? data : Value.Convert(known, { ...(data as object) });
    const error = mistakeIn(known, value, httpPart);
    return error === undefined ? { value } : { error };
  };
}

function wordsOf({ schema, message }: ValueError): string {
  const { anyOf, pattern } = schema as { anyOf?: readonly { const?: unknown }[]; pattern?: string };
  if (anyOf?.every((each) => typeof each.const === 'string') === true) {
    return `one of ${anyOf.map((each) => String(each.const)).join(', ')} is wanted`;
  }
  if (pattern === PATH_PATTERN) return 'an absolute path is wanted';
  const text = message.replace(/^E/, 'e').replace(/^U/, 'u');
  return text === 'unexpected property' ? 'there is no such member' : text;
}

export const PATH_PATTERN = '^/[^\\0]*$';
