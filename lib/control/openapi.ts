/** The routes as an OpenAPI 3.1 document, made of the schemas that check them. */
import type { TSchema } from '@sinclair/typebox';
import { METRICS_MEDIA_TYPE, type Answer, type Route } from './route.js';
import { Failed } from './schemas.js';
import { FRAMES_MEDIA_TYPE } from './stream-frames.js';

type Json = Record<string, unknown>;

export function openApi(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) };
  }
  return {
    openapi: '3.1.0',
    info: { title: "A machine's control socket", version },
    paths,
  };
}

function operation({ summary, query, params, body, answer }: Route): Json {
  const parameters = [...members(params, 'path'), ...members(query, 'query')];
  return {
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { content: content(body) } }),
    responses: {
      200: { description: 'done', content: content(answer) },
      default: { description: 'what was wrong', content: content(Failed) },
    },
  };
}

function members(schema: TSchema | undefined, place: 'path' | 'query'): Json[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = schema as {
    properties?: Record<string, TSchema>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, member]) => ({
    name,
    in: place,
    required: required.includes(name),
    schema: member,
  }));
}

function content(answer: Answer): Json {
  if (answer === 'bytes') return { 'application/octet-stream': {} };
  if (answer === 'metrics') return { [METRICS_MEDIA_TYPE]: { schema: { type: 'string' } } };
  if (answer === 'frames') return { [FRAMES_MEDIA_TYPE]: {} };
  return { 'application/json': { schema: answer } };
}
